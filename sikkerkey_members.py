"""What each action may answer with: the members that hold no value of a stored secret. Anything else is withheld.

Nothing here knows MCP or the vault. Derived from the recorded examples (docs/examples.json) and the local vault.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

# The members of a thing, in whichever answer it appears. Those that end in {} are objects or lists of objects, whose
# members are listed like all others.
LIST = "items{} total"
PAGE = "total page pageSize"
PROJECT = "id name description secretCount createdAt updatedAt"
STORED = "id name type note version fieldNames projectId projectName createdAt updatedAt deletedAt purgeAt"
VERSION = "id version origin createdAt"
SCHEDULE = (
    "id secretId projectId name note fieldNames fields intervalSeconds length charset enabled nextRotationAt "
    "lastRotationAt version createdAt updatedAt"
)
TEMPORARY = "id name projectId status createdAt expiresAt closedAt"
POLICY = (
    "id projectId name description timeWindowEnabled timeWindowStart timeWindowEnd timeWindowTimezone timeWindowDays "
    "ipAllowlistEnabled ipAllowlistCidrs rateCapEnabled maxReadsPerDay maxReadsPerMinute coSignEnabled coSignMachineId "
    "coSignWindowSeconds ttlExpiresAt ttlMaxReads rotateAfterReads boundSecretCount createdAt updatedAt deleted"
)
BINDING = "secretId policyId policyName reads readsOfVersion boundAt"
CANARY = (
    "id projectId name enabled triggerFreezeProject triggerFreezeRelatedProjects triggerCount lastTriggeredAt "
    "projectFrozenAt createdAt updatedAt"
)
MACHINE = (
    "id name kind state hostname createdAt approvedAt lastSeenAt expiresAt enrollmentTokenId fingerprint grantCount "
    "projects{} projectId projectName addedAt secretCount"
)
AGENT = (
    "id agentId name state approved enabled scopes projectAllowlist fingerprint vaultId createdAt approvedAt lastSeenAt"
)
RENAMED = "name newName changedAt"
REMOVED = (
    "preview cascade{} secrets secretsInTrash secretVersions rotationSchedules policies canaries teamPermissions "
    "machineMemberships grants enrollmentTokens temporarySecrets agentAllowlistEntries projectMemberships deleted"
)
ENROLLMENT = (
    "id name description state projectIds secretIds machineLifetimeSeconds maxUses uses sourceCidr hostnamePattern "
    "namePattern createdAt expiresAt revokedAt revokeReason"
)
TEAM = "members{} invites{} memberId inviteId email role state permissions projectCount joinedAt createdAt expiresAt"
PERMISSION = "memberId projectId projectName email role permissions removed"
ALERT = "action severity enabledAt raised lastRaisedAt enabledActions"
WEBHOOK = (
    "id url actions enabled lastSuccessAt lastFailureAt lastStatus lastError consecutiveFailures queuedDeliveries "
    "droppedDeliveries createdAt updatedAt deleted"
)
ADDRESS = "enabled entries{} id cidr label createdAt deleted deletedIds"
ENTRY = "entries{} id action severity actorKind userId machineId aiAgentId secretId projectId sourceIp detail timestamp"
TICKET = (
    "id categoryId priority title status rating messageCount messageId createdAt updatedAt conversation{} author body "
    "attachments{} name contentType sizeBytes"
)
SDK = "id name packageName installCommand example"
NAMES = "items total"  # a list of words
CREDENTIAL = "token passphrase url link secret signingSecret"  # of actions that create one, and of no others

# fmt: off
ANSWERS = {
    "whoami.whoami":                      f"recentAudit{{}} {AGENT} {ENTRY} time",
    "manage_projects.list":               f"{LIST} {PROJECT}",
    "manage_projects.create":             PROJECT,
    "manage_projects.update":             PROJECT,
    "manage_projects.delete":             f"{PROJECT} {REMOVED}",
    "manage_projects.permissions":        f"{LIST} {PERMISSION}",
    "manage_secrets.list":                f"{LIST} {STORED}",
    "manage_secrets.get":                 STORED,
    "manage_secrets.create":              STORED,
    "manage_secrets.update_value":        STORED,
    "manage_secrets.delete":              STORED,
    "manage_secrets.rename":              STORED,
    "manage_secrets.update_note":         STORED,
    "manage_secrets.rotate":              STORED,
    "manage_secrets.rollback":            STORED,
    "manage_secrets.versions":            f"{LIST} {VERSION}",
    "manage_secrets.dynamic_list":        f"{LIST} {SCHEDULE}",
    "manage_secrets.dynamic_get":         SCHEDULE,
    "manage_secrets.dynamic_create":      SCHEDULE,
    "manage_secrets.dynamic_update":      SCHEDULE,
    "manage_secrets.dynamic_delete":      SCHEDULE,
    "manage_temporary_secrets.list":      f"{LIST} {TEMPORARY}",
    "manage_temporary_secrets.create":    f"{TEMPORARY} {CREDENTIAL}",
    "manage_policies.list":               f"{LIST} {POLICY}",
    "manage_policies.get":                f"boundSecrets{{}} inTrash {POLICY}",
    "manage_policies.create":             POLICY,
    "manage_policies.update":             POLICY,
    "manage_policies.delete":             POLICY,
    "manage_policies.binding_get":        BINDING,
    "manage_policies.binding_bind":       BINDING,
    "manage_policies.binding_unbind":     BINDING,
    "manage_canaries.list":               f"{LIST} {CANARY}",
    "manage_canaries.create":             CANARY,
    "manage_canaries.get":                CANARY,
    "manage_canaries.config":             CANARY,
    "manage_canaries.enable":             CANARY,
    "manage_canaries.disable":            CANARY,
    "manage_canaries.unfreeze_project":   f"{PROJECT} frozen",
    "manage_machines.list":               f"{LIST} {MACHINE}",
    "manage_machines.get":                MACHINE,
    "manage_machines.approve":            MACHINE,
    "manage_machines.deny":               MACHINE,
    "manage_machines.revoke":             f"{MACHINE} {REMOVED}",
    "manage_machines.rename":             MACHINE,
    "manage_machines.name_history":       f"{LIST} {RENAMED}",
    "manage_ai_agents.list":              f"{LIST} {AGENT}",
    "manage_ai_agents.get":               AGENT,
    "manage_ai_agents.name_history":      f"{LIST} {RENAMED}",
    "manage_ai_agents.approve":           AGENT,
    "manage_ai_agents.deny":              AGENT,
    "manage_ai_agents.disable":           AGENT,
    "manage_ai_agents.enable":            AGENT,
    "manage_ai_agents.rename":            AGENT,
    "manage_ai_agents.revoke":            AGENT,
    "manage_project_machines.query":      f"machines{{}} {PAGE} {MACHINE}",
    "manage_project_machines.attach":     f"{MACHINE} machineId",
    "manage_project_machines.detach":     f"{MACHINE} machineId grantsRemoved",
    "manage_project_machines.grants_get": f"{LIST} id name grantedAt",
    "manage_project_machines.grants_set": "projectId machineId secretIds",
    "manage_enrollment.list":             f"{LIST} {ENROLLMENT}",
    "manage_enrollment.get":              ENROLLMENT,
    "manage_enrollment.create":           f"{ENROLLMENT} {CREDENTIAL}",
    "manage_enrollment.revoke":           ENROLLMENT,
    "manage_team.list":                   TEAM,
    "manage_team.invite":                 TEAM,
    "manage_team.cancel_invite":          TEAM,
    "manage_team.remove":                 f"{TEAM} removed",
    "manage_team.permissions_get":        f"{LIST} {PERMISSION}",
    "manage_team.permissions_set":        PERMISSION,
    "manage_team.permissions_remove":     PERMISSION,
    "manage_trash.list":                  f"{LIST} {STORED}",
    "manage_trash.restore":               f"{STORED} restored",
    "manage_trash.purge":                 f"{STORED} purged",
    "manage_alerts.list":                 f"{LIST} {ALERT}",
    "manage_alerts.actions":              NAMES,
    "manage_alerts.set":                  ALERT,
    "manage_webhooks.list":               f"{LIST} {WEBHOOK}",
    "manage_webhooks.get":                WEBHOOK,
    "manage_webhooks.create":             f"{WEBHOOK} {CREDENTIAL}",
    "manage_webhooks.update":             WEBHOOK,
    "manage_webhooks.delete":             WEBHOOK,
    "manage_webhooks.test":               "id deliveryId queued",
    "manage_ipallowlist.list":            ADDRESS,
    "manage_ipallowlist.add":             ADDRESS,
    "manage_ipallowlist.update":          ADDRESS,
    "manage_ipallowlist.delete":          ADDRESS,
    "manage_ipallowlist.enable":          ADDRESS,
    "manage_ipallowlist.disable":         ADDRESS,
    "manage_ipallowlist.bulk_delete":     ADDRESS,
    "read_audit.query":                   f"{ENTRY} {PAGE} totalIsAtLeast searchStart",
    "read_audit.list":                    f"{ENTRY} {PAGE} totalIsAtLeast",
    "read_audit.actions":                 NAMES,
    "read_audit.activity":                f"{LIST} {ENTRY}",
    "read_audit.export":                  ENTRY,
    "read_audit.stats":                   "projects frozenProjects secrets secretsInTrash canaries policies machines "
                                          "aiAgents reads24h deniedReads24h canariesTriggered24h",
    "read_audit.reads_over_time":         f"{LIST} from to reads denied",
    "read_audit.usage":                   "plan periodStart periodEnd used{} limits{} projects secrets secretVersions "
                                          "storedBytes machines aiAgents teamMembers auditEntries reads",
    "support.categories":                 f"{LIST} id name",
    "support.list":                       f"tickets{{}} {PAGE} {TICKET}",
    "support.get":                        TICKET,
    "support.create":                     TICKET,
    "support.reply":                      TICKET,
    "support.rate":                       TICKET,
    "support.attachment":                 "",
    "manage_sdks.list":                   f"{LIST} {SDK}",
    "manage_sdks.get":                    SDK,
}
# fmt: on

_ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?")
_COUNT_OR_TIME = re.compile("(?:At|Count|Seconds|Ms|Bytes|Reads|Version|^total|^version)$")


class Members(NamedTuple):
    """The members that an action may answer with: those that hold texts and numbers, and those that hold objects."""

    plain: frozenset[str]
    objects: frozenset[str]

    def knows(self, name: str) -> bool:
        """Whether the action is known to answer with a member of this name."""
        return name in self.plain or name in self.objects

    def may_show(self, name: str, value: Any) -> bool:
        """Whether a member, or an item of its list, is known or cannot be a stored value."""
        if isinstance(value, dict):
            return not value or name in self.objects
        return name in self.plain or _is_harmless(name, value)


def _is_harmless(name: str, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return _COUNT_OR_TIME.search(name) is not None
    if not isinstance(value, str):
        return False
    if name.endswith("At"):
        return _TIME.fullmatch(value) is not None
    return (name == "id" or name.endswith(("Id", "Ids"))) and _ID.fullmatch(value) is not None


@functools.cache
def members_of(action_name: str) -> Members:
    """The members of an action, given as tool.action. Raises KeyError for one of this program's own."""
    names = ANSWERS[action_name].split()
    objects = frozenset(name[:-2] for name in names if name.endswith("{}"))
    return Members(frozenset(names) - {f"{name}{{}}" for name in objects}, objects | {"items"})
