//! Acting as somebody else: the one guard under which Pushy's own statements run.

use super::extension::{not_installed, owner};
use super::{current_user, role_exists};
use crate::errors::{Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::{guc, script};
use pgrx::pg_sys::{self, Oid};
use pushy_core::version::Fit;
use std::cell::Cell;

extern "C-unwind" {
    /// Without the guards of the bindings: both only read or set variables of this process.
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut i32);
    fn SetUserIdAndSecContext(user: Oid, context: i32);
}

/// Restores the user of before, and the count of guards, when dropped, also when an ERROR unwinds through it. No ERROR may jump past
/// it, because an abort puts back the user only: whatever raises one is called through the guards of the bindings, which make it
/// unwind.
struct Guard {
    user: Oid,
    context: i32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        OWNER_ACTS.set(OWNER_ACTS.get() - 1);
        // SAFETY: puts back what GetUserIdAndSecContext answered.
        unsafe { SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// How many guards there are.
static OWNER_ACTS: PerProcess<Cell<u32>> = PerProcess::new(Cell::new(0));

/// Whether the code runs within [`as_owner`]: then nothing of a user's may be looked up or run.
pub fn is_owner_acting() -> bool {
    OWNER_ACTS.get() > 0
}

/// Stops before something of a user's is looked up or run with the owner's rights.
pub fn expect_no_owner() {
    assert!(
        !is_owner_acting(),
        "code of a user's reached the rights of the extension's owner"
    );
}

/// Runs Pushy's own statements with the rights of the extension's owner, if they fit the tables that its script has made. No
/// handler, expression or input function of a user's type may ever run inside.
pub fn as_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = owner().ok_or_else(not_installed)?;
    if owner.fit != Fit::Works {
        return Err(script::refused(owner.fit));
    }
    let _guard = become_user(owner.role);
    work()
}

/// The same in a script of the extension, whose tables need not fit yet: for catalogs only. None: there are no tables yet.
pub fn as_owner_in_script<T>(work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let Some(owner) = owner() else {
        return Ok(None);
    };
    let _guard = become_user(owner.role);
    work().map(Some)
}

/// Who acts, and in what context: as the server's own notes for code that runs later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    user: Oid,
    context: i32,
}

impl Actor {
    pub fn now() -> Self {
        let mut now = Self {
            user: Oid::INVALID,
            context: 0,
        };
        // SAFETY: only reads backend globals.
        unsafe { GetUserIdAndSecContext(&mut now.user, &mut now.context) };
        now
    }

    /// Runs code of users that this actor has caused, later, when another may be at work: it can neither get that one's
    /// rights nor do what was forbidden when it was caused.
    pub fn act<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        /// As [`Guard`], but for code of users.
        struct Lent(Actor);
        impl Drop for Lent {
            fn drop(&mut self) {
                // SAFETY: puts back what GetUserIdAndSecContext answered.
                unsafe { SetUserIdAndSecContext(self.0.user, self.0.context) }
            }
        }
        let now = Self::now();
        if now == self {
            return work();
        }
        let _lent = Lent(now);
        let local_change = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        // SAFETY: only sets backend globals; an abort puts them back too.
        unsafe {
            SetUserIdAndSecContext(self.user, now.context | self.context | local_change);
        }
        work()
    }
}

/// Whose words a text of SQL holds beside Pushy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    Nobody,
    Role(Oid),
}

/// Reads words of SQL with the rights of their author, who may be another than the caller. They are looked up with these rights, and
/// nothing of them runs (see src/pg/catalog/trigger.rs and src/pg/expression/unplanned.rs); if something did, words of another role could
/// neither get the caller's rights back nor leave anything behind that runs later (SECURITY_RESTRICTED_OPERATION), settings
/// included.
pub fn as_author<T>(author: Author, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match author {
        Author::Role(role) if role != current_user() => {
            if !role_exists(role) {
                return Err(Error::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    "the role that wrote it is gone",
                ));
            }
            let restricted = Actor {
                user: role,
                context: pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
            };
            let settings = guc::nest();
            let result = restricted.act(work);
            settings.undo();
            result
        }
        _ => work(),
    }
}

fn become_user(role: Oid) -> Guard {
    let mut guard = Guard {
        user: Oid::INVALID,
        context: 0,
    };
    let local_change = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
    // SAFETY: both calls only read and set backend globals.
    unsafe {
        GetUserIdAndSecContext(&mut guard.user, &mut guard.context);
        SetUserIdAndSecContext(role, guard.context | local_change);
    }
    OWNER_ACTS.set(OWNER_ACTS.get() + 1);
    guard
}
