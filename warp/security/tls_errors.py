"""What went wrong in TLS, in words for a log line: OpenSSL's reasons name its functions' view, not an operator's."""

from __future__ import annotations

import ssl
from typing import Final

_REASONS: Final = {
    "HTTP_REQUEST": "it speaks HTTP, to a listener with TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS, to a listener with TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks only versions of TLS that are older than --tls-version-min",
    "NO_SHARED_CIPHER": "it has no cipher in common with this agent",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate, which --tls-client-auth requires",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the certificate of this agent (unknown authority)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate of this agent",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate of this agent",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that the certificate of this agent has expired",
    "UNEXPECTED_EOF_WHILE_READING": "it has gone in the middle of TLS",
}


def tls_error_text(error: ssl.SSLError) -> str:
    """Why there is no TLS with a peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = error.reason or ""
    return _REASONS.get(reason) or f"TLS failed: {reason.replace('_', ' ').lower() or type(error).__name__}"
