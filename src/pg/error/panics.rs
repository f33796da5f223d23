//! Panics as a user or the server's log may see them: without a backtrace, whatever RUST_BACKTRACE says, and without a path of
//! the machine that has built the library.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe, PanicHookInfo};

use pgrx::pg_sys::panic::{pgrx_extern_c_guard, ErrorReport};
use pgrx::PgSqlErrorCode;

use crate::pg::per_process::PerProcess;

/// Where the last panic began.
static PLACE: PerProcess<RefCell<Option<String>>> = PerProcess::new(RefCell::new(None));

/// Takes the place of the hook of the bindings, which captures a backtrace for each ERROR of the server that unwinds our
/// frames and puts it into the error's DETAIL; once, at load.
pub fn init() {
    std::panic::set_hook(Box::new(note));
}

fn note(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    // An ERROR of the server on its way through our frames says for itself where it began.
    if payload.is::<&str>() || payload.is::<String>() {
        let place = info
            .location()
            .map(|at| format!("{}:{}", short(at.file()), at.line()));
        PLACE.with_borrow_mut(|last| *last = place);
    }
}

/// A source file as its package names it.
fn short(file: &str) -> &str {
    if !file.starts_with('/') {
        return file;
    }
    for (mark, folders) in [("/registry/src/", 1), ("/library/", 0)] {
        if let Some(at) = file.find(mark) {
            let rest = &file[at + mark.len()..];
            return rest.splitn(folders + 1, '/').last().unwrap_or(rest);
        }
    }
    file.rsplit('/').next().unwrap_or(file)
}

/// What a panic of ours says, and where it began; None for an ERROR of the server's or of another kind.
pub fn description(payload: &(dyn Any + Send)) -> Option<(String, Option<String>)> {
    let message = payload
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())?;
    let place = PLACE.with_borrow_mut(Option::take);
    let place = place.map(|place| format!("It began at {place}."));
    Some((format!("internal error: {message}"), place))
}

pub const HINT: &str = "This is a bug of Pushy's: please report it with what led to it.";

/// The edge between the server and us: unwinding ends here and goes on as an ERROR of the server, a panic with a message that
/// names it as ours.
///
/// # Safety
/// As of pgrx_extern_c_guard: no frame of ours below has anything to drop.
#[inline]
pub unsafe fn edge<T>(work: impl FnOnce() -> T) -> T {
    pgrx_extern_c_guard(|| {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|payload| resume_unwind(presentable(payload)))
    })
}

#[cold]
fn presentable(payload: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    let Some((message, place)) = description(&*payload) else {
        return payload;
    };
    let report = ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "pushy");
    let report = report.set_hint(HINT);
    Box::new(match place {
        Some(place) => report.set_detail(place),
        None => report,
    })
}
