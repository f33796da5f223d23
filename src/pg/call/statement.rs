//! Utility statements that concern us, recognised by their parse trees.

use std::ffi::{c_char, CStr};

use pgrx::pg_sys;

use super::named::{MovedObject, RelationName, Whose};

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
    /// ALTER DATABASE … SET, or RESET.
    SetOfDatabase {
        name: std::ffi::CString,
    },
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
    /// ALTER TABLE … ENABLE or DISABLE TRIGGER, of one or of all.
    SwitchTriggers {
        relation: RelationName,
        /// It does nothing else.
        is_all: bool,
    },
    RenameColumn {
        relation: RelationName,
        from: std::ffi::CString,
        to: std::ffi::CString,
    },
    /// ALTER … RENAME or SET SCHEMA of something that is in a schema.
    MoveObject {
        object: MovedObject,
    },
    /// ALTER of an object in a schema that gives it away, or changes what it does.
    AlterObject {
        object: MovedObject,
    },
    /// ALTER TABLE, INDEX or VIEW that changes no column.
    AlterRelation {
        relation: RelationName,
        /// Only how and where its rows are kept.
        is_storage: bool,
    },
    /// ALTER EXTENSION pushy DROP ….
    DropMember,
    Listen {
        channel: std::ffi::CString,
    },
    /// One channel, or all.
    Unlisten {
        channel: Option<std::ffi::CString>,
    },
}

/// Recognises a statement by its parse tree.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(super) unsafe fn recognise(node: *mut pg_sys::Node) -> Option<Statement> {
    use pg_sys::NodeTag::{
        T_AlterDatabaseSetStmt, T_AlterDatabaseStmt, T_AlterExtensionContentsStmt,
        T_AlterExtensionStmt, T_AlterFunctionStmt, T_AlterObjectDependsStmt,
        T_AlterObjectSchemaStmt, T_AlterOwnerStmt, T_AlterRoleStmt, T_AlterTableStmt,
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
                kind => Some(Statement::MoveObject {
                    object: MovedObject::of(kind, (*rename).relation, (*rename).object),
                }),
            }
        }
        T_AlterObjectSchemaStmt => {
            let alter = &*node.cast::<pg_sys::AlterObjectSchemaStmt>();
            Some(Statement::MoveObject {
                object: MovedObject::of(alter.objectType, alter.relation, alter.object),
            })
        }
        T_AlterOwnerStmt => {
            let alter = &*node.cast::<pg_sys::AlterOwnerStmt>();
            Some(Statement::AlterObject {
                object: MovedObject::of(alter.objectType, alter.relation, alter.object),
            })
        }
        T_AlterObjectDependsStmt => {
            let alter = &*node.cast::<pg_sys::AlterObjectDependsStmt>();
            Some(Statement::AlterObject {
                object: MovedObject::of(alter.objectType, alter.relation, alter.object),
            })
        }
        T_AlterFunctionStmt => {
            let alter = &*node.cast::<pg_sys::AlterFunctionStmt>();
            let function = alter.func.cast();
            Some(Statement::AlterObject {
                object: MovedObject::of(alter.objtype, std::ptr::null_mut(), function),
            })
        }
        T_AlterExtensionContentsStmt => {
            let alter = &*node.cast::<pg_sys::AlterExtensionContentsStmt>();
            let is_ours = CStr::from_ptr(alter.extname) == c"pushy";
            (is_ours && alter.action < 0).then_some(Statement::DropMember)
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
        T_AlterDatabaseSetStmt => Some(Statement::SetOfDatabase {
            name: text((*node.cast::<pg_sys::AlterDatabaseSetStmt>()).dbname),
        }),
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
    let (mut is_other, mut switches, mut is_storage) = (false, 0, true);
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
            pg_sys::AlterTableType::AT_EnableTrig
            | pg_sys::AlterTableType::AT_EnableAlwaysTrig
            | pg_sys::AlterTableType::AT_EnableReplicaTrig
            | pg_sys::AlterTableType::AT_DisableTrig
            | pg_sys::AlterTableType::AT_EnableTrigAll
            | pg_sys::AlterTableType::AT_DisableTrigAll
            | pg_sys::AlterTableType::AT_EnableTrigUser
            | pg_sys::AlterTableType::AT_DisableTrigUser => switches += 1,
            pg_sys::AlterTableType::AT_SetStatistics
            | pg_sys::AlterTableType::AT_SetOptions
            | pg_sys::AlterTableType::AT_ResetOptions
            | pg_sys::AlterTableType::AT_SetStorage
            | pg_sys::AlterTableType::AT_SetCompression
            | pg_sys::AlterTableType::AT_SetRelOptions
            | pg_sys::AlterTableType::AT_ResetRelOptions
            | pg_sys::AlterTableType::AT_SetTableSpace
            | pg_sys::AlterTableType::AT_SetAccessMethod
            | pg_sys::AlterTableType::AT_ClusterOn
            | pg_sys::AlterTableType::AT_DropCluster
            | pg_sys::AlterTableType::AT_DropOids
            | pg_sys::AlterTableType::AT_ReplicaIdentity
            | pg_sys::AlterTableType::AT_ValidateConstraint => {}
            // Always the only one of its statement.
            pg_sys::AlterTableType::AT_AttachPartition => {
                let name = (*command.def.cast::<pg_sys::PartitionCmd>()).name;
                return Some(Statement::AttachPartition {
                    parent: RelationName::of(alter.relation),
                    partition: RelationName::of(name),
                });
            }
            _ => is_storage = false,
        }
    }
    // With columns that change beside it is a change of columns.
    if switches > 0 && !is_other && retyped.is_empty() && dropped.is_empty() {
        return Some(Statement::SwitchTriggers {
            relation: RelationName::of(alter.relation),
            is_all: switches == list(alter.cmds).count(),
        });
    }
    let relation = RelationName::of(alter.relation);
    if !is_other && retyped.is_empty() && dropped.is_empty() {
        return Some(Statement::AlterRelation {
            relation,
            is_storage,
        });
    }
    Some(Statement::AlterColumns {
        relation,
        retyped,
        dropped,
    })
}

pub(super) unsafe fn text(pointer: *const c_char) -> std::ffi::CString {
    CStr::from_ptr(pointer).to_owned()
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
