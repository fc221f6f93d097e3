# The provider of tokens that aiokafka's clients take for OAUTHBEARER.
from abc import ABC, abstractmethod

class AbstractTokenProvider(ABC):
    @abstractmethod
    async def token(self) -> str: ...
