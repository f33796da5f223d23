//! ALTER TABLE … RENAME COLUMN: `columns` and expressions of watches follow the column.

use super::altered::take_texts;
use super::column_users::{target, users_of};
use crate::errors::Result;
use crate::pg::utility::RelationName;
use crate::pg::{identifier, identity, invalidation, Oid};
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;
use crate::watch::{changes, find};

/// Renames a column in the definitions of watches, as the server has done in their triggers.
pub(super) fn rename(relation: &RelationName, from: &str, to: &str) -> Result<()> {
    let Some(oid) = target(relation) else {
        return Ok(());
    };
    let mut done: Vec<Oid> = Vec::new();
    for user in users_of(oid, &[to.to_owned()])? {
        if done.contains(&user.relation) {
            continue;
        }
        done.push(user.relation);
        let table = WatchedTable::look_up(user.relation)?;
        for mut watch in identity::as_owner(|| find::of_table(&table))? {
            if !watch.is_home() {
                continue;
            }
            let before = watch.clone();
            for column in watch.columns.iter_mut().flatten() {
                if column == from {
                    to.clone_into(column);
                }
            }
            let mut kept = watch.clone();
            // What somebody has put in the place of a trigger is none of the watch's words.
            let is_unchanged = trigger_texts::are_unchanged(&watch)?;
            if is_unchanged {
                take_texts(&mut kept)?;
            }
            let name = identifier::quoted(to);
            let uses = |text: &Option<String>| {
                text.as_ref().is_some_and(|text| {
                    ["new", "old"]
                        .iter()
                        .any(|row| text.contains(&format!("{row}.{name}")))
                })
            };
            for (text, kept) in [
                (&mut watch.condition, kept.condition),
                (&mut watch.payload_expr, kept.payload_expr),
                (&mut watch.args_expr, kept.args_expr),
                (&mut watch.topic_expr, kept.topic_expr),
            ] {
                if is_unchanged && uses(&kept) {
                    *text = kept;
                }
            }
            if is_unchanged {
                watch.trigger_texts = trigger_texts::of_watch(&watch)?;
            }
            if watch != before {
                identity::as_owner(|| changes::reword(&watch))?;
                invalidation::send(watch.relation);
            }
        }
    }
    Ok(())
}
