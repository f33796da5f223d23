//! queue_channel: what to write after LISTEN to hear of a queue for workers outside.

use super::name::Channel;
use crate::pg::{identity, text};
use crate::queue::privilege::{self, Privilege};
use crate::queue::{cache, channel_name};
use crate::sql_function;

sql_function!(pushy_queue_channel_v1, |call| {
    let name = call.text("queue", 0)?;
    let known = cache::get(&name)?;
    let queue = &known.definition;
    let caller = identity::current_user();
    privilege::require(queue, &known.grants, caller, Privilege::Claim)?;
    queue.require_outside()?;
    let channel = Channel::exact(&channel_name::of(&queue.name))?;
    Ok(text::shown(&channel.ident()))
});
