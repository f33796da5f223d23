//! A queue whose owner or role was dropped: roles are held by number, so one that is created under the old name is another,
//! and only queue_alter mends the queue. This finds roles with which it would run.

use crate::errors::quote_literal;
use crate::pg::function_catalog as functions;
use crate::pg::{database, home, identifier, identity, Oid};
use crate::queue::definition::QueueDefinition;
use crate::queue::eligibility;
use crate::queue::ineligible::Ineligible;

/// The role that runs the jobs is gone. `stored`: what the fix is to change.
#[cold]
pub fn run_as(queue: &QueueDefinition, stored: &QueueDefinition) -> Ineligible {
    Ineligible::RoleGone {
        role: identifier::quoted(&queue.run_as_name),
        fix: fix(queue, stored),
    }
}

#[cold]
pub fn owner(queue: &QueueDefinition, stored: &QueueDefinition) -> Ineligible {
    Ineligible::OwnerGone {
        owner: identifier::quoted(&queue.owner_name),
        fix: fix(queue, stored),
    }
}

/// Words, because jobs get the rights of another role; the statement in them, if one will do, runs as it is.
fn fix(queue: &QueueDefinition, stored: &QueueDefinition) -> String {
    let is_here = |role, name| home::role(stored.home_system, role, name).is_some();
    let owner_is_gone = !is_here(stored.owner, &stored.owner_name);
    let by = if owner_is_gone {
        ", as a superuser"
    } else {
        ""
    };
    let name = quote_literal(&stored.name);
    let Some(chosen) = successors(queue) else {
        let owner = if owner_is_gone { "owner => …, " } else { "" };
        return format!(
            "Pass roles that exist{by}: pushy.queue_alter({name}, {owner}run_as => …), where run_as may log in and execute {}",
            stored.handler
        );
    };
    let mut call = name.clone();
    let mut say = |argument: &str, role: Oid, before: Oid, is_gone: bool| {
        if is_gone || role != before {
            let role = identifier::quoted(&identity::role_name(role));
            call += &format!(", {argument} => {}", quote_literal(&role));
        }
    };
    say("owner", chosen.owner, stored.owner, owner_is_gone);
    let run_as_is_gone = !is_here(stored.run_as, &stored.run_as_name);
    say("run_as", chosen.run_as, stored.run_as, run_as_is_gone);
    let resume = if stored.is_home() {
        String::new()
    } else {
        format!("; SELECT pushy.queue_resume({name})")
    };
    format!(
        "Ask whoever dropped it, because the role that takes its place is to be chosen; else{by}: SELECT pushy.queue_alter({call}){resume}"
    )
}

/// The queue with roles that are there, and with which it could run. A role that is left stays; for the other one those come
/// first that get no right they had not: who runs the jobs already, and whose code the handler is.
fn successors(queue: &QueueDefinition) -> Option<QueueDefinition> {
    let here = |role, name: &str| home::role(queue.home_system, role, name);
    let function = functions::function(queue.handler_oid)
        .filter(|_| queue.is_home())
        .or_else(|| functions::named(&queue.handler).ok().flatten())?;
    let owner = here(queue.owner, &queue.owner_name);
    let run_as = here(queue.run_as, &queue.run_as_name);
    let handler_owner = queue.handler_owner_name.as_str();
    let as_if = |owner: Oid, run_as: Oid| QueueDefinition {
        owner,
        owner_name: identity::role_name(owner),
        run_as,
        run_as_name: identity::role_name(run_as),
        handler_oid: function.oid,
        handler: function.signature.clone(),
        handler_owner: here(queue.handler_owner, handler_owner).unwrap_or(Oid::INVALID),
        home_system: database::system_identifier(),
        home_database: database::current(),
        ..queue.clone()
    };
    let owners = match owner {
        Some(owner) => vec![owner],
        None => run_as.into_iter().chain([function.owner]).collect(),
    };
    let mut pairs = owners.into_iter().flat_map(|owner| {
        let roles = run_as.map_or_else(|| vec![function.owner, owner], |role| vec![role]);
        roles.into_iter().map(move |role| (owner, role))
    });
    pairs.find_map(|(owner, role)| {
        let tried = as_if(owner, role);
        let runs = eligibility::check(&tried).and_then(|_| eligibility::check_session(&tried));
        runs.is_ok().then_some(tried)
    })
}
