"""Routes of the surface that this vault knows and does not carry out.

They pass every check of a signed request, scope included, and answer 501: a client can tell a route that it may not use
from one that it spelled wrongly. A route that gets a handler moves to the file of its domain.
"""

from __future__ import annotations

from vault.calls import Route

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/projects/{projectId}/temporary-secrets", "projects.secrets.read"),
    Route("POST", "/v1/ai/projects/{projectId}/temporary-secrets", "projects.secrets.write"),

    Route("GET",  "/v1/ai/projects/{projectId}/policies", "projects.policies.read"),
    Route("GET",  "/v1/ai/projects/{projectId}/policies/{policyId}", "projects.policies.read"),
    Route("POST", "/v1/ai/projects/{projectId}/policies", "projects.policies.write"),
    Route("POST", "/v1/ai/projects/{projectId}/policies/{policyId}/update", "projects.policies.write"),
    Route("POST", "/v1/ai/projects/{projectId}/policies/{policyId}/delete", "projects.policies.write"),
    Route("GET",  "/v1/ai/secrets/{secretId}/binding", "projects.policies.read"),
    Route("POST", "/v1/ai/secrets/{secretId}/binding", "projects.policies.write"),
    Route("POST", "/v1/ai/secrets/{secretId}/binding/delete", "projects.policies.write"),

    Route("GET",  "/v1/ai/projects/{projectId}/canaries", "projects.policies.read"),
    Route("POST", "/v1/ai/canaries", "projects.policies.write"),
    Route("GET",  "/v1/ai/canaries/{canaryId}", "projects.policies.read"),
    Route("POST", "/v1/ai/canaries/{canaryId}/config", "projects.policies.write"),
    Route("POST", "/v1/ai/canaries/{canaryId}/enable", "projects.policies.write"),
    Route("POST", "/v1/ai/canaries/{canaryId}/disable", "projects.policies.write"),
    Route("POST", "/v1/ai/projects/{projectId}/unfreeze", "projects.policies.write"),

    Route("GET",  "/v1/ai/machines", "machines.read"),
    Route("GET",  "/v1/ai/machines/{machineId}", "machines.read"),
    Route("POST", "/v1/ai/machines/{machineId}/approve", "machines.write"),
    Route("POST", "/v1/ai/machines/{machineId}/deny", "machines.write"),
    Route("POST", "/v1/ai/machines/{machineId}/revoke", "machines.write"),
    Route("POST", "/v1/ai/machines/{machineId}/rename", "machines.write"),
    Route("GET",  "/v1/ai/machines/{machineId}/name-history", "machines.read"),

    Route("GET",  "/v1/ai/ai-agents", "aiagents.read"),
    Route("GET",  "/v1/ai/ai-agents/{agentId}", "aiagents.read"),
    Route("GET",  "/v1/ai/ai-agents/{agentId}/name-history", "aiagents.read"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/approve", "aiagents.write"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/deny", "aiagents.write"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/disable", "aiagents.write"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/enable", "aiagents.write"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/rename", "aiagents.write"),
    Route("POST", "/v1/ai/ai-agents/{agentId}/revoke", "aiagents.write"),

    Route("POST", "/v1/ai/projects/{projectId}/machines/query", "projects.machines.read"),
    Route("POST", "/v1/ai/projects/{projectId}/machines", "projects.machines.write"),
    Route("POST", "/v1/ai/projects/{projectId}/machines/{machineId}/detach", "projects.machines.write"),
    Route("GET",  "/v1/ai/projects/{projectId}/machines/{machineId}/secrets", "projects.machines.read"),
    Route("POST", "/v1/ai/projects/{projectId}/machines/{machineId}/grants", "projects.machines.write"),

    Route("GET",  "/v1/ai/enrollment-tokens", "enrollment.read"),
    Route("GET",  "/v1/ai/enrollment-tokens/{tokenId}", "enrollment.read"),
    Route("POST", "/v1/ai/enrollment-tokens", "enrollment.write"),
    Route("POST", "/v1/ai/enrollment-tokens/{tokenId}/revoke", "enrollment.write"),

    Route("GET",  "/v1/ai/team", "team.read"),
    Route("POST", "/v1/ai/team/invites", "team.write"),
    Route("POST", "/v1/ai/team/invites/{inviteId}/cancel", "team.write"),
    Route("POST", "/v1/ai/team/{memberId}/remove", "team.write"),
    Route("GET",  "/v1/ai/team/{memberId}/permissions", "team.read"),
    Route("POST", "/v1/ai/projects/{projectId}/permissions", "team.write"),
    Route("POST", "/v1/ai/projects/{projectId}/permissions/{memberId}/delete", "team.write"),

    Route("GET",  "/v1/ai/trash", "trash.read"),
    Route("POST", "/v1/ai/trash/{secretId}/restore", "trash.write"),
    Route("POST", "/v1/ai/trash/{secretId}/purge", "trash.write"),

    Route("GET",  "/v1/ai/alerts", "alerts.read"),
    Route("GET",  "/v1/ai/alerts/actions", "alerts.read"),
    Route("POST", "/v1/ai/alerts", "alerts.write"),

    Route("GET",  "/v1/ai/webhooks", "alerts.read"),
    Route("GET",  "/v1/ai/webhooks/{webhookId}", "alerts.read"),
    Route("POST", "/v1/ai/webhooks", "alerts.write"),
    Route("POST", "/v1/ai/webhooks/{webhookId}/update", "alerts.write"),
    Route("POST", "/v1/ai/webhooks/{webhookId}/delete", "alerts.write"),
    Route("POST", "/v1/ai/webhooks/{webhookId}/test", "alerts.write"),

    Route("GET",  "/v1/ai/ipallowlist", "ipallowlist.read"),
    Route("POST", "/v1/ai/ipallowlist", "ipallowlist.write"),
    Route("POST", "/v1/ai/ipallowlist/{entryId}/update", "ipallowlist.write"),
    Route("POST", "/v1/ai/ipallowlist/{entryId}/delete", "ipallowlist.write"),
    Route("POST", "/v1/ai/ipallowlist/enable", "ipallowlist.write"),
    Route("POST", "/v1/ai/ipallowlist/disable", "ipallowlist.write"),
    Route("POST", "/v1/ai/ipallowlist/bulk-delete", "ipallowlist.write"),

    Route("POST", "/v1/ai/audit/export", "audit.read"),
    Route("GET",  "/v1/ai/stats", "audit.read"),
    Route("POST", "/v1/ai/stats/reads-over-time", "audit.read"),
    Route("GET",  "/v1/ai/usage", "audit.read"),

    Route("GET",  "/v1/ai/ticket-categories", "support.write"),
    Route("POST", "/v1/ai/tickets/query", "support.write"),
    Route("GET",  "/v1/ai/tickets/{ticketId}", "support.write"),
    Route("POST", "/v1/ai/tickets", "support.write"),
    Route("POST", "/v1/ai/tickets/{ticketId}/reply", "support.write"),
    Route("POST", "/v1/ai/tickets/{ticketId}/rate", "support.write"),
    Route("GET",  "/v1/ai/tickets/attachments/{attachmentId}", "support.write"),

    Route("GET",  "/v1/ai/sdks", None),
    Route("GET",  "/v1/ai/sdks/{sdkId}", None),
)
# fmt: on
