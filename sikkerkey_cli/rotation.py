"""`rotate-key`: replaces an agent with a new one that has a new key. At every moment, at least one of the two works.

The vault ties a key to an agent, so a new key is a new agent, which the owner has to approve:

    rotate-key TOKEN      registers it in a hidden slot, agents/.next-ID; the old agent keeps working
    rotate-key --finish   if the vault has approved it: makes the slot visible, deletes the old one, and has the vault
                          revoke the old agent

The new identity names the ids that it replaces, and `--agent OLD` finds it by them: no client's file has to change. If
the program is killed between two steps, `--finish` continues.
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress

import sikkerkey_activity
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_refusals
from sikkerkey_cli import agents
from sikkerkey_cli.agents import NEXT
from sikkerkey_cli.terminal import Progress, UsageError
from sikkerkey_identity import Identity, agents_directory
from sikkerkey_mcp import ConfigError, Error, clean, print_notice


def command_rotate_key(options: argparse.Namespace) -> int:
    """Registers the new agent, or finishes or cancels what was begun."""
    if bool(options.token) == (options.finish or options.cancel):
        raise UsageError("give a token to begin, or --finish or --cancel", "sikkerkey-mcp rotate-key --help")
    if options.token:
        return _begin(options)
    waiting = _waiting(options.agent)
    if waiting is None:
        return _finish_revocation(options.agent)
    return _cancel(waiting) if options.cancel else _finish(waiting)


def _begin(options: argparse.Namespace) -> int:
    old_id = sikkerkey_identity.choose_agent(options.agent)
    if old_id is None:
        raise ConfigError("no agent is installed on this computer", sikkerkey_identity.INSTALL_HINT)
    old = sikkerkey_identity.load_identity(old_id)
    for waiting in _all_waiting():
        if old.agent_id in waiting.replaces:
            hint = "sikkerkey-mcp rotate-key --finish, or --cancel"
            raise ConfigError(f"a new key for agent {old.agent_id} waits for approval already", hint)
    options.name = options.name or old.name
    if not (options.passphrase or options.key_store):  # the new key is protected like the old one
        options.key_store = bool(old.key_store)
        options.passphrase = not old.key_store and sikkerkey_identity.is_encrypted(old.key_pem)
    wanted = agents.wanted_registration(options, old.address)
    members, public_key = agents.install_agent(wanted, agents.protection(options), replaces=old)
    print(f"registered agent {members['agentId']}, which is to replace {old.agent_id} ({clean(old.name)})")
    print(f"its key is {sikkerkey_keys.fingerprint(public_key)}")
    finish = sikkerkey_mcp.runnable("sikkerkey-mcp rotate-key --finish")
    approve = "the old key works until the vault's owner approves the new agent, with the same scopes and projects"
    print_notice(f"{approve}; then: {finish}")
    return 0


def _finish(new: Identity) -> int:
    """Replaces the old agent, unless the vault does not accept the new one yet. Raises Error."""
    _require_approval(new)
    old_id, directory = new.replaces[0], agents_directory()
    old_slot, slot = os.path.join(directory, old_id), os.path.join(directory, new.agent_id)
    try:
        os.rename(os.path.join(directory, NEXT + new.agent_id), slot)
    except OSError as error:
        raise ConfigError(f"{clean(slot)} cannot be written: {error.strerror}", "nothing was changed") from None
    if os.path.isdir(old_slot):
        _keep_activity(old_slot, slot)
        agents.forget(old_id)
    print(f"agent {new.agent_id} has replaced {old_id}; entries of clients that name {old_id} find it")
    return _revoke_old(sikkerkey_identity.load_identity(new.agent_id))


def _finish_revocation(wanted: str) -> int:
    """Has the vault revoke an agent that was replaced before. Raises ConfigError if none was."""
    agent = sikkerkey_identity.choose_agent(wanted)
    identity = sikkerkey_identity.load_identity(agent) if agent else None
    if identity is None or not identity.replaces:
        raise ConfigError("no new key waits for approval", "begin with: sikkerkey-mcp rotate-key -")
    if os.path.isdir(os.path.join(agents_directory(), identity.replaces[0])):
        agents.forget(identity.replaces[0])  # the program was killed before
    return _revoke_old(identity)


def _revoke_old(new: Identity) -> int:
    """Has the new agent revoke the old one; 0 also if only the owner may."""
    old_id = new.replaces[0]
    try:
        agents.revoke_at_vault(new, old_id)
    except Error as error:
        if isinstance(error, sikkerkey_mcp.ServiceError) and error.status == 404:
            print(f"the vault does not list agent {old_id} any more")
            return 0
        print_notice(f"the vault still lists agent {old_id}, whose key is deleted: {error}")
        print_notice("next: the vault's owner revokes it on the dashboard (AI agents page)")
    return 0


def _cancel(new: Identity) -> int:
    agents.forget(new.agent_id, hidden=NEXT)
    print(f"removed the new key of agent {new.agent_id}; {new.replaces[0]} stays")
    print_notice("the vault still lists the new agent: its owner can reject it on the dashboard (AI agents page)")
    return 0


def _require_approval(new: Identity) -> None:
    """Raises Error unless the vault answers the new agent, with scopes that the old one had."""
    action = sikkerkey_mcp.TOOLS[0].actions[0]
    request = sikkerkey_mcp.build_request(action, {})
    with Progress("waiting for the vault"):
        reply = sikkerkey_mcp.agent_api(new).send(request, safe=True, context=sikkerkey_mcp.Context())
    if 200 <= reply.status < 300:
        members = sikkerkey_refusals.error_members(reply)
        if (
            members.get("agentId") == new.agent_id
            and members.get("approved") is True
            and members.get("enabled") is True
        ):
            return
    error = agents.refusal(action, reply)
    message = f"the vault does not accept agent {new.agent_id} yet; nothing was changed"
    raise Error(message, f"its owner approves it, then run this again; the vault: {error}")


def _all_waiting() -> list[Identity]:
    """The new agents whose rotation is not finished. Raises ConfigError."""
    try:
        names = sorted(os.listdir(agents_directory()))
    except OSError:
        return []
    ids = [name[len(NEXT) :] for name in names if name.startswith(NEXT)]
    found = [sikkerkey_identity.load_identity(agent, slot=NEXT + agent) for agent in ids if sikkerkey_mcp.is_id(agent)]
    return [identity for identity in found if identity.replaces]


def _waiting(old_id: str) -> Identity | None:
    """The new agent that is to replace `old_id`, or the only one. Raises ConfigError if there are several."""
    found = [new for new in _all_waiting() if not old_id or old_id in (new.agent_id, *new.replaces)]
    if len(found) > 1:
        ids = ", ".join(new.replaces[0] for new in found)
        raise ConfigError("several agents have a new key that waits for approval", f"choose one with --agent: {ids}")
    return found[0] if found else None


def _keep_activity(old_slot: str, slot: str) -> None:
    """Moves the record of what the old agent did. If it cannot be moved, the rotation continues."""
    for name in sikkerkey_activity.file_names(old_slot):
        with suppress(OSError):
            os.rename(os.path.join(old_slot, name), os.path.join(slot, name))
