"""Commands of the HTTP service."""

from __future__ import annotations

from training.commands.group import Entry

COMMANDS = (
    Entry("serve", "service.commands.serve:serve", "Service", "Serve the HTTP API and the web page."),
    Entry("keys", "service.commands.keys:keys", "Service", "Create, list, rotate and revoke API keys."),
)
