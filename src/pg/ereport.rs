//! Reports to the client and the log, with any SQLSTATE and without Rust backtraces.

use std::ffi::{c_char, c_int, CStr, CString};

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::PgLogLevel;

use super::text;
use crate::errors::Error;

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
pub fn pack_sqlstate(sqlstate: &str) -> i32 {
    sqlstate
        .bytes()
        .take(5)
        .enumerate()
        .fold(0, |packed, (i, byte)| {
            packed | ((i32::from(byte) - i32::from(b'0')) & 0x3f) << (6 * i)
        })
}

/// The five characters of a packed SQLSTATE.
pub fn unpack_sqlstate(packed: i32) -> String {
    (0..5)
        .map(|i| (((packed >> (6 * i)) & 0x3f) as u8 + b'0') as char)
        .collect()
}

fn c_string(message: &str) -> CString {
    let message = message.replace('\0', "\\0");
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
            code: pack_sqlstate(error.sqlstate.0),
            message: c_string(&error.message),
            detail: error.detail.as_deref().map(c_string),
            hint: error.hint.as_deref().map(c_string),
        }
    }
}

fn report(level: c_int, error: &Error) {
    let parts = Parts::from(error);
    // SAFETY: the protocol of ereport(): errstart says whether anything is wanted, the parts are
    // NUL-terminated and outlive the call; below ERROR errfinish returns.
    unsafe {
        if errstart(level, std::ptr::null()) {
            errcode(parts.code);
            errmsg(PERCENT_S.as_ptr(), parts.message.as_ptr());
            if let Some(detail) = &parts.detail {
                errdetail(PERCENT_S.as_ptr(), detail.as_ptr());
            }
            if let Some(hint) = &parts.hint {
                errhint(PERCENT_S.as_ptr(), hint.as_ptr());
            }
            pg_guard_ffi_boundary(|| errfinish(std::ptr::null(), 0, std::ptr::null()));
        }
    }
}

/// Raises `error`. errfinish leaves by longjmp, which the guard around it turns into an unwinding of
/// our frames and the edge of the function back into the server's error.
pub fn raise(error: Error) -> ! {
    report(PgLogLevel::ERROR as c_int, &error);
    unreachable!("an ERROR returned")
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
