//! From what a user wrote to the one function that is meant, with the user's rights and search path.

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::function_catalog::{self as functions, Function};
use crate::pg::{identifier, identity};
use crate::queue::eligibility::{self, Ineligible};

/// What a handler can take, in the order in which a bare name is tried.
const ARGUMENTS: [&str; 3] = ["(pg_catalog.jsonb)", "(pushy.job)", "()"];

/// Bytes of a handler that is looked for: a function has 100 arguments, and a type's name 63 characters, as a schema's has.
const LONGEST: usize = 100_000;

/// The function that `text` names: `schema.name(types)`, or a name that only one handler has. It has
/// the form of a handler; whether the queue's role may run it is another question.
pub fn resolve(text: &str) -> Result<Function> {
    if text.len() > LONGEST {
        let failure = Error::new(SqlState::NAME_TOO_LONG, "it is too long");
        return Err(unread(text, failure));
    }
    let function = if text.trim_end().ends_with(')') {
        match by_signature(text, text)? {
            Some(function) => function,
            None => return Err(undefined(text)?),
        }
    } else {
        by_name(text)?
    };
    eligibility::form_of_handler(&function).map_err(Ineligible::into_error)?;
    Ok(function)
}

/// The function of a signature as queues keep it, whatever type named jsonb is on the search path.
pub fn by_stored_signature(signature: &str) -> Result<Option<Function>> {
    if signature.is_empty() {
        return Ok(None);
    }
    match signature.strip_suffix("(jsonb)") {
        Some(name) => by_signature(&format!("{name}{}", ARGUMENTS[0]), signature),
        None => by_signature(signature, signature),
    }
}

/// `written`: as messages have it.
fn by_signature(signature: &str, written: &str) -> Result<Option<Function>> {
    let oid =
        functions::find_by_signature(signature).map_err(|failure| unread(written, failure))?;
    Ok(oid.and_then(functions::function))
}

fn by_name(name: &str) -> Result<Function> {
    let all = functions::count_by_name(name).map_err(|failure| unread(name, failure))?;
    if all == 0 {
        return Err(undefined(name)?);
    }
    let mut found = Vec::new();
    for arguments in ARGUMENTS {
        found.extend(by_signature(&format!("{name}{arguments}"), name)?);
    }
    match found.len() {
        0 => Err(wrong_arguments(name)?),
        1 => Ok(found.remove(0)),
        _ => Err(ambiguous(name, &found)),
    }
}

/// With what there is of that name.
#[cold]
fn wrong_arguments(name: &str) -> Result<Error> {
    let error = Ineligible::WrongArguments {
        handler: name.to_owned(),
    }
    .into_error();
    let bare = name.rsplit('.').next().unwrap_or_default();
    let alike = functions::alike(bare.trim().trim_matches('"'))?;
    let there: Vec<&str> = alike.iter().map(|f| f.signature.as_str()).collect();
    Ok(match there.as_slice() {
        [] => error,
        there => error.detail(format!("There is {}.", there.join(" and "))),
    })
}

/// With what there is of that name: in another schema, with other arguments, or with capital letters, which want quotes.
#[cold]
fn undefined(text: &str) -> Result<Error> {
    let error = Error::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("handler {text} does not exist"),
    );
    let name = text.split('(').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    let alike = functions::alike(name.trim().trim_matches('"'))?;
    let Some(first) = alike.first() else {
        return Ok(error.hint("Write it as in 'public.send_mail(jsonb)'; a name without a schema is looked for along search_path."));
    };
    let (handlers, others): (Vec<&Function>, Vec<&Function>) = alike
        .iter()
        .partition(|function| eligibility::form_of_handler(function).is_ok());
    let said: Vec<&str> = handlers
        .iter()
        .chain(&others)
        .map(|function| function.signature.as_str())
        .collect();
    let hint = match handlers.first() {
        Some(meant) => format!(
            "Write it with its schema, and its quotes if it has some: {}.",
            quote_literal(&meant.signature)
        ),
        None => format!(
            "A handler takes (jsonb), (pushy.job) or nothing: {} does not.",
            first.signature
        ),
    };
    Ok(error
        .detail(format!("There is {}.", said.join(" and ")))
        .hint(hint))
}

fn ambiguous(name: &str, found: &[Function]) -> Error {
    let signatures: Vec<&str> = found.iter().map(|f| f.signature.as_str()).collect();
    Error::new(
        SqlState::AMBIGUOUS_FUNCTION,
        format!("handler {name} is not unique"),
    )
    .detail(format!("It could be {}.", signatures.join(" or ")))
    .hint(format!(
        "Write it with its argument types: '{}'.",
        signatures[0]
    ))
}

/// The server could not read the text, or may not look where it points.
fn unread(text: &str, failure: Error) -> Error {
    Error::new(
        failure.sqlstate,
        format!("handler \"{text}\" cannot be resolved: {}", failure.message),
    )
    .hint(if failure.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE {
        format!(
            "Who registers a queue, and the role that runs its jobs, need USAGE on the schema of the handler: its owner can run GRANT USAGE ON SCHEMA … TO {}.",
            identifier::quoted(&identity::role_name(identity::current_user()))
        )
    } else {
        "Write it as in 'public.send_mail(jsonb)': a handler takes (jsonb), (pushy.job) or nothing.".to_owned()
    })
}
