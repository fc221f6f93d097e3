"""Consumer groups: who is a member of what, who has which share of the work, and how far everybody got."""
