//! CALL of a procedure at top level, in transactions of its own, which it may end.
//!
//! A procedure that ends a transaction needs a portal to stand on: between a COMMIT and its next statement nothing else holds a
//! snapshot. So it is run as a client's CALL is (exec_simple_query in postgres.c), but without the text: a plan for its number.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use crate::errors::Result;
use crate::pg::guard::guarded;
use crate::pg::memory::Context;
use crate::pg::subtransaction::protected;
use crate::pg::{identity, major};

// Without the guards of the bindings, for `protected` and one guard for several.
extern "C-unwind" {
    fn StartTransactionCommand();
    fn CommitTransactionCommand();
    fn CreatePortal(
        name: *const std::ffi::c_char,
        allow_dup: bool,
        dup_silent: bool,
    ) -> pg_sys::Portal;
    fn PortalDefineQuery(
        portal: pg_sys::Portal,
        prep_stmt_name: *const std::ffi::c_char,
        source_text: *const std::ffi::c_char,
        command_tag: pg_sys::CommandTag::Type,
        stmts: *mut pg_sys::List,
        cplan: *mut pg_sys::CachedPlan,
    );
    fn PortalStart(
        portal: pg_sys::Portal,
        params: pg_sys::ParamListInfo,
        eflags: std::ffi::c_int,
        snapshot: pg_sys::Snapshot,
    );
    fn PortalDrop(portal: pg_sys::Portal, is_top_commit: bool);
    fn palloc0(size: pg_sys::Size) -> *mut std::ffi::c_void;
    fn lappend(list: *mut pg_sys::List, datum: *mut std::ffi::c_void) -> *mut pg_sys::List;
    fn makeConst(
        consttype: Oid,
        consttypmod: i32,
        constcollid: Oid,
        constlen: std::ffi::c_int,
        constvalue: Datum,
        constisnull: bool,
        constbyval: bool,
    ) -> *mut pg_sys::Const;
    fn makeFuncExpr(
        funcid: Oid,
        rettype: Oid,
        args: *mut pg_sys::List,
        funccollid: Oid,
        inputcollid: Oid,
        fformat: pg_sys::CoercionForm::Type,
    ) -> *mut pg_sys::FuncExpr;
    fn CreateDestReceiver(dest: pg_sys::CommandDest::Type) -> *mut pg_sys::DestReceiver;
}

/// The argument of a procedure that takes one, and its type, which is passed by reference.
#[derive(Clone, Copy)]
pub struct Argument {
    pub of_type: Oid,
    pub value: Datum,
}

/// What pg_stat_statements and the server's log show of it; never the argument.
const TEXT: &CStr = c"CALL of a procedure for a job";

/// CALLs a procedure with the argument that it takes, outside of any transaction, and commits what it leaves open once
/// `before_commit` has agreed. After an error the caller rolls back what is open. What is allocated here is in `memory`, because it
/// outlives the procedure's transactions. Whether the current user may execute it is the server's to check.
pub fn call(
    procedure: Oid,
    argument: Option<Argument>,
    memory: &Context,
    before_commit: impl FnOnce() -> Result<()>,
) -> Result<()> {
    identity::expect_no_owner();
    let statements = memory.enter(|| plan(procedure, argument));
    // SAFETY: no transaction is open and no portal active; an ERROR inside jumps over frames that own nothing.
    unsafe {
        protected(|| {
            StartTransactionCommand();
            let portal = CreatePortal(c"".as_ptr(), true, true);
            (*portal).visible = false;
            PortalDefineQuery(
                portal,
                std::ptr::null(),
                TEXT.as_ptr(),
                pg_sys::CommandTag::CMDTAG_CALL,
                statements,
                std::ptr::null_mut(),
            );
            PortalStart(portal, std::ptr::null_mut(), 0, std::ptr::null_mut());
            let nowhere = CreateDestReceiver(pg_sys::CommandDest::DestNone);
            major::run_portal(portal, nowhere);
            PortalDrop(portal, false);
        })?;
        before_commit()?;
        protected(|| CommitTransactionCommand())
    }
}

/// A list of one statement: the CALL as the server's parser would have made it.
fn plan(procedure: Oid, argument: Option<Argument>) -> *mut pg_sys::List {
    unsafe fn node<T>(tag: pg_sys::NodeTag) -> *mut T {
        let node = palloc0(size_of::<T>()).cast::<T>();
        (*node.cast::<pg_sys::Node>()).type_ = tag;
        node
    }
    // SAFETY: nodes as the server's own constructors make them, in the current memory context.
    unsafe {
        guarded(|| {
            let mut arguments = std::ptr::null_mut();
            if let Some(Argument { of_type, value }) = argument {
                let constant = makeConst(of_type, -1, Oid::INVALID, -1, value, false, false);
                arguments = lappend(arguments, constant.cast());
            }
            let call = node::<pg_sys::CallStmt>(pg_sys::NodeTag::T_CallStmt);
            (*call).funcexpr = makeFuncExpr(
                procedure,
                pg_sys::VOIDOID,
                arguments,
                Oid::INVALID,
                Oid::INVALID,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            )
            .cast();
            let statement = node::<pg_sys::PlannedStmt>(pg_sys::NodeTag::T_PlannedStmt);
            (*statement).commandType = pg_sys::CmdType::CMD_UTILITY;
            (*statement).canSetTag = true;
            (*statement).utilityStmt = call.cast();
            (*statement).stmt_location = -1;
            lappend(std::ptr::null_mut(), statement.cast())
        })
    }
}
