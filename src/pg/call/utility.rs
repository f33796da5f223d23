//! Utility statements before and after they run: the few that need our workers out of the way, or that we count.

use std::ffi::{c_char, CStr};
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::{pg_guard, pg_sys};

/// A statement that concerns us.
#[derive(Debug, PartialEq, Eq)]
pub enum Statement {
    DropDatabase {
        name: std::ffi::CString,
    },
    RenameDatabase {
        name: std::ffi::CString,
    },
    MoveDatabase {
        name: std::ffi::CString,
    },
    /// CREATE DATABASE from this template.
    CopyDatabase {
        template: std::ffi::CString,
        /// Its number is chosen.
        is_numbered: bool,
    },
    DropExtension,
    /// What these roles own, which may be the extension.
    DropOwned {
        roles: Vec<Whose>,
    },
    AlterExtension,
    RenameSchema {
        name: std::ffi::CString,
    },
    /// ALTER TABLE … ATTACH PARTITION.
    AttachPartition {
        parent: RelationName,
        partition: RelationName,
    },
    /// A role, a database or a privilege changes: who could not connect may be able to now.
    ChangeAccess,
    /// PREPARE TRANSACTION; what it says is done when the statement is over.
    Prepare {
        name: std::ffi::CString,
    },
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    FinishPrepared {
        name: std::ffi::CString,
    },
    SetConstraints,
    /// ALTER TABLE or ALTER TYPE adds, drops or changes columns: these change their type, those are dropped without CASCADE.
    AlterColumns {
        relation: RelationName,
        retyped: Vec<std::ffi::CString>,
        dropped: Vec<std::ffi::CString>,
    },
    CreateTrigger {
        relation: RelationName,
    },
    RenameColumn {
        relation: RelationName,
        from: std::ffi::CString,
        to: std::ffi::CString,
    },
    Listen {
        channel: std::ffi::CString,
    },
    /// One channel, or all.
    Unlisten {
        channel: Option<std::ffi::CString>,
    },
}

/// A role as a statement names it.
#[derive(Debug, PartialEq, Eq)]
pub enum Whose {
    Named(std::ffi::CString),
    CurrentUser,
    SessionUser,
}

/// A relation as a statement names it.
#[derive(Debug, PartialEq, Eq)]
pub struct RelationName {
    schema: Option<std::ffi::CString>,
    name: std::ffi::CString,
}

impl RelationName {
    unsafe fn of(variable: *mut pg_sys::RangeVar) -> Self {
        let schema = (*variable).schemaname;
        Self {
            schema: (!schema.is_null()).then(|| text(schema)),
            name: text((*variable).relname),
        }
    }

    /// The relation that is meant, along the current search path.
    pub fn find(&self) -> Option<pg_sys::Oid> {
        let schema = self.schema.as_ref();
        // SAFETY: the strings outlive the look-up, which only reads them; nothing is locked.
        let oid = unsafe {
            let variable = pg_sys::makeRangeVar(
                schema.map_or(std::ptr::null_mut(), |schema| schema.as_ptr().cast_mut()),
                self.name.as_ptr().cast_mut(),
                -1,
            );
            pg_sys::RangeVarGetRelidExtended(
                variable,
                pg_sys::NoLock as pg_sys::LOCKMODE,
                pg_sys::RVROption::RVR_MISSING_OK,
                None,
                std::ptr::null_mut(),
            )
        };
        (oid != pg_sys::Oid::INVALID).then_some(oid)
    }
}

/// What to do around them. `before` may raise; `after` runs when the statement has succeeded.
pub struct Hooks {
    pub before: fn(&Statement),
    pub after: fn(&Statement),
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

unsafe fn text(pointer: *const c_char) -> std::ffi::CString {
    CStr::from_ptr(pointer).to_owned()
}

/// Recognises a statement by its parse tree.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
unsafe fn recognise(node: *mut pg_sys::Node) -> Option<Statement> {
    use pg_sys::NodeTag::{
        T_AlterDatabaseStmt, T_AlterExtensionStmt, T_AlterRoleStmt, T_AlterTableStmt,
        T_ConstraintsSetStmt, T_CreateTrigStmt, T_CreatedbStmt, T_DiscardStmt, T_DropOwnedStmt,
        T_DropStmt, T_DropdbStmt, T_GrantRoleStmt, T_GrantStmt, T_ListenStmt, T_RenameStmt,
        T_TransactionStmt, T_UnlistenStmt,
    };
    match (*node).type_ {
        T_DropdbStmt => Some(Statement::DropDatabase {
            name: text((*node.cast::<pg_sys::DropdbStmt>()).dbname),
        }),
        T_RenameStmt => {
            let rename = node.cast::<pg_sys::RenameStmt>();
            match (*rename).renameType {
                pg_sys::ObjectType::OBJECT_DATABASE => Some(Statement::RenameDatabase {
                    name: text((*rename).subname),
                }),
                pg_sys::ObjectType::OBJECT_ROLE => Some(Statement::ChangeAccess),
                pg_sys::ObjectType::OBJECT_SCHEMA => Some(Statement::RenameSchema {
                    name: text((*rename).subname),
                }),
                pg_sys::ObjectType::OBJECT_COLUMN | pg_sys::ObjectType::OBJECT_ATTRIBUTE => {
                    Some(Statement::RenameColumn {
                        relation: RelationName::of((*rename).relation),
                        from: text((*rename).subname),
                        to: text((*rename).newname),
                    })
                }
                _ => None,
            }
        }
        T_AlterTableStmt => altered_table(&*node.cast::<pg_sys::AlterTableStmt>()),
        T_AlterDatabaseStmt => {
            let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
            Some(match option(&(*alter).options, c"tablespace") {
                Some(_) => Statement::MoveDatabase {
                    name: text((*alter).dbname),
                },
                None => Statement::ChangeAccess,
            })
        }
        T_GrantStmt => ((*node.cast::<pg_sys::GrantStmt>()).objtype
            == pg_sys::ObjectType::OBJECT_DATABASE)
            .then_some(Statement::ChangeAccess),
        T_AlterRoleStmt | T_GrantRoleStmt => Some(Statement::ChangeAccess),
        T_CreateTrigStmt => Some(Statement::CreateTrigger {
            relation: RelationName::of((*node.cast::<pg_sys::CreateTrigStmt>()).relation),
        }),
        T_ConstraintsSetStmt => Some(Statement::SetConstraints),
        T_ListenStmt => Some(Statement::Listen {
            channel: text((*node.cast::<pg_sys::ListenStmt>()).conditionname),
        }),
        T_UnlistenStmt => {
            let channel = (*node.cast::<pg_sys::UnlistenStmt>()).conditionname;
            Some(Statement::Unlisten {
                channel: (!channel.is_null()).then(|| text(channel)),
            })
        }
        T_DiscardStmt => ((*node.cast::<pg_sys::DiscardStmt>()).target
            == pg_sys::DiscardMode::DISCARD_ALL)
            .then_some(Statement::Unlisten { channel: None }),
        T_CreatedbStmt => {
            let create = node.cast::<pg_sys::CreatedbStmt>();
            // Said or not, something is copied (createdb in dbcommands.c).
            let template = option(&(*create).options, c"template");
            Some(Statement::CopyDatabase {
                template: template.unwrap_or_else(|| c"template1".to_owned()),
                is_numbered: list((*create).options).any(|option| {
                    CStr::from_ptr((*option.cast::<pg_sys::DefElem>()).defname) == c"oid"
                }),
            })
        }
        T_DropStmt => {
            let drop = node.cast::<pg_sys::DropStmt>();
            let is_extension = (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION;
            (is_extension && list((*drop).objects).any(|name| is_pushy(name)))
                .then_some(Statement::DropExtension)
        }
        T_DropOwnedStmt => Some(Statement::DropOwned {
            roles: list((*node.cast::<pg_sys::DropOwnedStmt>()).roles)
                .map(|role| whose(role.cast()))
                .collect(),
        }),
        T_AlterExtensionStmt => {
            let alter = node.cast::<pg_sys::AlterExtensionStmt>();
            (CStr::from_ptr((*alter).extname) == c"pushy").then_some(Statement::AlterExtension)
        }
        T_TransactionStmt => {
            use pg_sys::TransactionStmtKind::{
                TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_PREPARE, TRANS_STMT_ROLLBACK_PREPARED,
            };
            let statement = node.cast::<pg_sys::TransactionStmt>();
            match (*statement).kind {
                TRANS_STMT_PREPARE => Some(Statement::Prepare {
                    name: text((*statement).gid),
                }),
                TRANS_STMT_COMMIT_PREPARED | TRANS_STMT_ROLLBACK_PREPARED => {
                    Some(Statement::FinishPrepared {
                        name: text((*statement).gid),
                    })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

unsafe fn altered_table(alter: &pg_sys::AlterTableStmt) -> Option<Statement> {
    let (mut retyped, mut dropped) = (Vec::new(), Vec::new());
    let mut is_other = false;
    for command in list(alter.cmds) {
        let command = &*command.cast::<pg_sys::AlterTableCmd>();
        match command.subtype {
            pg_sys::AlterTableType::AT_AlterColumnType => retyped.push(text(command.name)),
            pg_sys::AlterTableType::AT_DropColumn
                if command.behavior != pg_sys::DropBehavior::DROP_CASCADE =>
            {
                dropped.push(text(command.name));
            }
            pg_sys::AlterTableType::AT_AddColumn | pg_sys::AlterTableType::AT_DropColumn => {
                is_other = true;
            }
            // Always the only one of its statement.
            pg_sys::AlterTableType::AT_AttachPartition => {
                let name = (*command.def.cast::<pg_sys::PartitionCmd>()).name;
                return Some(Statement::AttachPartition {
                    parent: RelationName::of(alter.relation),
                    partition: RelationName::of(name),
                });
            }
            _ => {}
        }
    }
    (is_other || !retyped.is_empty() || !dropped.is_empty()).then(|| Statement::AlterColumns {
        relation: RelationName::of(alter.relation),
        retyped,
        dropped,
    })
}

unsafe fn list(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    let length = if list.is_null() { 0 } else { (*list).length };
    (0..length).map(move |at| (*(*list).elements.offset(at as isize)).ptr_value.cast())
}

unsafe fn whose(role: *mut pg_sys::RoleSpec) -> Whose {
    match (*role).roletype {
        pg_sys::RoleSpecType::ROLESPEC_CSTRING => Whose::Named(text((*role).rolename)),
        pg_sys::RoleSpecType::ROLESPEC_SESSION_USER => Whose::SessionUser,
        _ => Whose::CurrentUser,
    }
}

unsafe fn is_pushy(name: *mut pg_sys::Node) -> bool {
    string(name).is_some_and(|name| name == c"pushy")
}

unsafe fn string<'a>(node: *mut pg_sys::Node) -> Option<&'a CStr> {
    if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_String {
        return None;
    }
    let value = (*node.cast::<pg_sys::String>()).sval;
    Some(CStr::from_ptr(value))
}

/// The string value of an option (DefElem) of a statement.
unsafe fn option(options: &*mut pg_sys::List, name: &CStr) -> Option<std::ffi::CString> {
    for node in list(*options) {
        let option = node.cast::<pg_sys::DefElem>();
        if CStr::from_ptr((*option).defname) == name {
            return string((*option).arg).map(CStr::to_owned);
        }
    }
    None
}

#[pg_guard]
unsafe extern "C-unwind" fn run_before(node: *mut pg_sys::Node) {
    if let Some(found) = recognise(node) {
        hooks().for_each(|hooks| (hooks.before)(&found));
    }
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
    if is_ours {
        run_before(node);
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
