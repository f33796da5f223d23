//! Hooks around utility statements, for the few that need our workers out of the way, or that we count; and utility statements of
//! our own.

use std::ffi::{c_char, CStr};
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::{pg_guard, pg_sys};

pub use super::named::{MovedObject, RelationName, Whose};
use super::statement::recognise;
pub use super::statement::Statement;

/// What to do around them. `before` may raise; `after` runs when the statement has succeeded.
pub struct Hooks {
    pub before: fn(&Statement),
    pub after: fn(&Statement),
    /// Asked between the two: whether the statement is to do nothing.
    pub skips: fn(&Statement) -> bool,
}

/// Of hooks that let every statement do what it says.
pub fn skip_none(_: &Statement) -> bool {
    false
}

const MOST_HOOKS: usize = 5;
static HOOKS: [AtomicPtr<Hooks>; MOST_HOOKS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MOST_HOOKS];
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Installs hooks, which are called in the order of their installation; while preloading.
pub fn install(hooks: &'static Hooks) {
    let free = HOOKS
        .iter()
        .position(|place| place.load(Ordering::Relaxed).is_null())
        .expect("room for all hooks");
    HOOKS[free].store(std::ptr::from_ref(hooks).cast_mut(), Ordering::Relaxed);
    if free > 0 {
        return;
    }
    // SAFETY: in the postmaster, before any process forks.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(on_utility);
    }
}

fn hooks() -> impl Iterator<Item = &'static Hooks> {
    // SAFETY: null, or a static reference that install() has put there.
    let installed = |place: &AtomicPtr<Hooks>| unsafe { place.load(Ordering::Relaxed).as_ref() };
    HOOKS.iter().filter_map(installed)
}

#[pg_guard]
unsafe extern "C-unwind" fn run_before(node: *mut pg_sys::Node) -> bool {
    let Some(found) = recognise(node) else {
        return false;
    };
    hooks().for_each(|hooks| (hooks.before)(&found));
    hooks().any(|hooks| (hooks.skips)(&found))
}

#[pg_guard]
unsafe extern "C-unwind" fn run_after(node: *mut pg_sys::Node) {
    if let Some(found) = recognise(node) {
        hooks().for_each(|hooks| (hooks.after)(&found));
    }
}

/// Every utility statement of the server passes through here, DO and CALL included, so its errors must pass
/// as they are: a guard would lose the constraint's name and the like. Unguarded, they jump over this frame,
/// which therefore owns nothing that wants to be dropped.
#[allow(clippy::too_many_arguments)]
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let node = (*statement).utilityStmt;
    let is_ours = recognise(node).is_some();
    if is_ours && run_before(node) {
        return;
    }
    let next = PREVIOUS.unwrap_or(raw_standard_process_utility);
    next(
        statement,
        query,
        read_only,
        context,
        params,
        environment,
        destination,
        completion,
    );
    if is_ours {
        run_after(node);
    }
}

extern "C-unwind" {
    #[link_name = "standard_ProcessUtility"]
    fn raw_standard_process_utility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Runs a utility statement as SPI would, which takes texts only: with hooks and event triggers.
///
/// # Safety
/// A raw parse tree, which the statement may change, of `text`; in a transaction.
pub(in crate::pg) unsafe fn run(node: *mut pg_sys::Node, text: &CStr) {
    let planned = pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
    (*planned).type_ = pg_sys::NodeTag::T_PlannedStmt;
    (*planned).commandType = pg_sys::CmdType::CMD_UTILITY;
    (*planned).utilityStmt = node;
    (*planned).stmt_location = -1;
    let mut completion = std::mem::zeroed();
    pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    pg_sys::ProcessUtility(
        planned,
        text.as_ptr(),
        false,
        pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY,
        std::ptr::null_mut(),
        std::ptr::null_mut(),
        pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
        &mut completion,
    );
    pg_sys::PopActiveSnapshot();
    pg_sys::CommandCounterIncrement();
}
