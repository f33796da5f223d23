//! Reports to the client and the log, with any SQLSTATE and without Rust backtraces.

use std::ffi::{c_char, c_int, CStr, CString};

use pgrx::{pg_sys, PgLogLevel};
use pushy_core::hidden;

use crate::errors::{Error, SqlState};
use crate::pg::guard::guarded;
use crate::pg::text;

// Declared here because the bindings leave them out. Only errfinish leaves by longjmp.
extern "C-unwind" {
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errmsg(fmt: *const c_char, ...) -> c_int;
    fn errdetail(fmt: *const c_char, ...) -> c_int;
    fn errhint(fmt: *const c_char, ...) -> c_int;
    fn errfinish(filename: *const c_char, lineno: c_int, funcname: *const c_char);
}

const PERCENT_S: &CStr = c"%s";

/// A SQLSTATE in the server's packed form: six bits a character (MAKE_SQLSTATE in elog.h).
pub fn pack_sqlstate(sqlstate: SqlState) -> i32 {
    let six_bits = |byte: u8| (i32::from(byte) - i32::from(b'0')) & 0x3f;
    (0..5).fold(0, |packed, i| packed | six_bits(sqlstate.0[i]) << (6 * i))
}

pub fn unpack_sqlstate(packed: i32) -> SqlState {
    SqlState(std::array::from_fn(|i| {
        ((packed >> (6 * i)) & 0x3f) as u8 + b'0'
    }))
}

fn c_string(message: &str) -> CString {
    // Names and texts of others may be in it, of whatever length.
    let message = hidden::of_message(&hidden::shortened(message));
    CString::new(text::encode_lossy(&message)).unwrap_or_default()
}

/// What a report says; kept apart from its level.
struct Parts {
    code: i32,
    message: CString,
    detail: Option<CString>,
    hint: Option<CString>,
}

impl From<&Error> for Parts {
    fn from(error: &Error) -> Self {
        Self {
            code: pack_sqlstate(error.sqlstate),
            message: c_string(&error.message),
            detail: error.detail.as_deref().map(c_string),
            hint: error.hint_sentence().as_deref().map(c_string),
        }
    }
}

impl Parts {
    fn report(&self, level: c_int) {
        let optional =
            |part: &Option<CString>| part.as_deref().map_or(std::ptr::null(), CStr::as_ptr);
        let ready = Ready {
            code: self.code,
            message: self.message.as_ptr(),
            detail: optional(&self.detail),
            hint: optional(&self.hint),
        };
        // SAFETY: the strings outlive the call; the guard turns a longjmp into unwinding.
        unsafe { guarded(|| ready.report(level)) }
    }
}

/// An error ready to leave by longjmp: nothing of it has to be dropped.
#[derive(Clone, Copy)]
pub struct Ready {
    code: i32,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
}

impl Ready {
    /// Copies the error into the current memory context, which the abort clears.
    pub fn new(error: &Error) -> Self {
        let parts = Parts::from(error);
        // SAFETY: copies NUL-terminated strings.
        let copy = |part: &CString| unsafe { pg_sys::pstrdup(part.as_ptr()).cast_const() };
        let optional = |part: &Option<CString>| part.as_ref().map_or(std::ptr::null(), copy);
        Self {
            code: parts.code,
            message: copy(&parts.message),
            detail: optional(&parts.detail),
            hint: optional(&parts.hint),
        }
    }

    /// Raises the error. A guard would keep the message as UTF-8, whatever the database's encoding, and add
    /// a backtrace to it: this leaves by the server's own longjmp.
    ///
    /// # Safety
    /// Only at the edge: no frame of ours below may have anything to drop.
    pub unsafe fn raise(self) -> ! {
        self.report(PgLogLevel::ERROR as c_int);
        unreachable!("an ERROR returned")
    }

    /// # Safety
    /// The strings are alive.
    unsafe fn report(self, level: c_int) {
        // The protocol of ereport(): errstart says whether anything is wanted; below ERROR errfinish
        // returns.
        if errstart(level, std::ptr::null()) {
            errcode(self.code);
            errmsg(PERCENT_S.as_ptr(), self.message);
            if !self.detail.is_null() {
                errdetail(PERCENT_S.as_ptr(), self.detail);
            }
            if !self.hint.is_null() {
                errhint(PERCENT_S.as_ptr(), self.hint);
            }
            errfinish(std::ptr::null(), 0, std::ptr::null());
        }
    }
}

fn report(level: c_int, error: &Error) {
    Parts::from(error).report(level);
}

/// A WARNING to the client.
pub fn warning(error: &Error) {
    report(PgLogLevel::WARNING as c_int, error);
}

/// A NOTICE to the client.
pub fn notice(error: &Error) {
    report(PgLogLevel::NOTICE as c_int, error);
}

/// A line in the server log.
pub fn log(error: &Error) {
    report(PgLogLevel::LOG as c_int, error);
}

/// An ERROR that unwinds our frames: it ends a worker.
pub fn raise(error: &Error) -> ! {
    report(PgLogLevel::ERROR as c_int, error);
    unreachable!("an ERROR returned")
}
