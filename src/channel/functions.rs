//! The SQL functions, declared in `sql/channel.sql`.

use super::name::Channel;
use super::reading::Reading;
use super::refusals;
use crate::errors::{Error, Result};
use crate::pg::function::Answer;
use crate::{row, sql_function};

sql_function!(pushy_channel_name_v1, |call| {
    let identifier = call.bytes("channel", 0)?;
    Channel::of_identifier(&identifier).map(Channel::into_bytes)
});

sql_function!(pushy_channel_ident_v1, |call| {
    let name = call.bytes("channel_name", 0)?;
    Channel::exact(&name).map(|channel| channel.ident())
});

sql_function!(pushy_channel_inspect_v1, |call| {
    Result::Ok(call.answer_row(&inspected(call.opt_bytes(0))))
});

/// The columns of `channel_inspect`; `error` is the message `channel_name` raises for the same text.
fn inspected(identifier: Option<Vec<u8>>) -> [Answer; 9] {
    let Some(text) = identifier else {
        return refused(None, &Error::null_argument("channel"));
    };
    match Reading::of(&text) {
        Err(error) => refused(Some(&text), &error),
        Ok(reading) => {
            let ident = Channel::of_reading(&reading).ident();
            let error = reading
                .truncated()
                .then(|| refusals::cut(&text, &reading).message);
            *row![
                text.as_slice(),
                reading.channel.as_slice(),
                reading.byte_length as i32,
                reading.folded,
                reading.truncated(),
                reading.quoted,
                [b"LISTEN ", ident.as_slice()].concat(),
                [b"NOTIFY ", ident.as_slice()].concat(),
                error,
            ]
        }
    }
}

fn refused(text: Option<&[u8]>, error: &Error) -> [Answer; 9] {
    *row![
        text,
        None::<&[u8]>,
        None::<i32>,
        None::<bool>,
        None::<bool>,
        None::<bool>,
        None::<&[u8]>,
        None::<&[u8]>,
        error.message.as_str(),
    ]
}
