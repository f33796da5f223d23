//! pg_upgrade: the same place under another number. Files of tables are taken over as they are, so that a row which no dump has
//! says where the extension has lived until now.
//!
//! | the row says | then this is | and |
//! | --- | --- | --- |
//! | another cluster, this database, another number of the extension | what pg_upgrade made of it | all that was at home goes on |
//! | another database | a copy by template | nothing does before somebody says so |
//! | another cluster, with this number of the extension | a copy of the files (pg_createsubscriber) | the same |
//! | this place | the place, or what a restore has made of a dump | |
//!
//! pg_upgrade gives the new cluster an identifier of its own, keeps the numbers of databases and makes the extension anew, under a
//! number that the old cluster has not given out. It keeps the numbers of roles too.

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, transaction, BuiltinOid};
use crate::queue::definition;
use crate::queue::restore;
use crate::ON_QUEUES;

static READ: Plan = Plan::new(
    "SELECT h.system, h.database, h.extension FROM pushy_internal.home h",
    &[],
);

static UPGRADED_FROM: Plan = Plan::new(
    "UPDATE pushy_internal.home SET former = former OPERATOR(pg_catalog.||) $1",
    &[BuiltinOid::INT8OID],
);

static WRITE: Plan = Plan::new(
    "UPDATE pushy_internal.home SET system = $1, database = $2, extension = $3",
    &[BuiltinOid::INT8OID, BuiltinOid::OIDOID, BuiltinOid::OIDOID],
);

/// Lets what was at home go on after pg_upgrade, and notes where this is. Of a scheduler, before it reads the queues.
pub fn go_on() -> Result<()> {
    let here = Home::here();
    let read = || {
        Ok(spi::connect(|spi| {
            let found = spi.run(&READ, &[]);
            found.first().map(|row| Home {
                system: row.i64(1),
                database: row.oid(2),
                extension: row.oid(3),
            })
        }))
    };
    let Some(before) = identity::as_owner(read)?.filter(|before| *before != here) else {
        return Ok(());
    };
    let is_upgraded = before.system != here.system
        && before.database == here.database
        && before.extension != here.extension;
    if is_upgraded {
        // Roles have kept their numbers, so whatever was written there means the roles of these numbers, now and later.
        identity::as_owner(|| {
            spi::run(&UPGRADED_FROM, params![before.system]);
            Ok(())
        })?;
        adopt(&before)?;
    }
    identity::as_owner(|| {
        let params = params![here.system, here.database, here.extension];
        spi::run(&WRITE, params);
        Ok(())
    })
}

fn adopt(before: &Home) -> Result<()> {
    let mut went_on = 0;
    let mut obstacles = Vec::new();
    let mut note = |name: String, obstacle: Option<String>| match obstacle {
        None => went_on += 1,
        Some(obstacle) => obstacles.push(format!("{name}: {obstacle}")),
    };
    for queue in identity::as_owner(definition::all)? {
        if queue.home_system != before.system || queue.home_database != before.database.to_u32() {
            continue;
        }
        let name = format!("queue {}", queue.name);
        let paused = queue.paused;
        if let Some(obstacle) = restore::adopt(queue)? {
            note(name, obstacle.filter(|_| !paused));
        }
    }
    for kind in &ON_QUEUES {
        for (name, obstacle) in (kind.adopt_from)(before)? {
            note(format!("{} {name}", kind.kind[0]), obstacle);
        }
    }
    restore::ask_for_sweep();
    if went_on > 0 || !obstacles.is_empty() {
        log(went_on, &obstacles);
    }
    Ok(())
}

fn log(went_on: usize, obstacles: &[String]) {
    let error = Error::new(
        SqlState::WARNING,
        format!(
            "after pg_upgrade {went_on} queues, watches, channels and subscriptions of this database go on, {} do not",
            obstacles.len()
        ),
    );
    transaction::log_at_commit(if obstacles.is_empty() {
        error
    } else {
        error.detail(obstacles.join("; ")).hint(
            "Once that is mended, run in this database: SELECT * FROM pushy.resume_after_restore()",
        )
    });
}
