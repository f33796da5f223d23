//! Roles, relations and other objects as a statement names them.

use pgrx::pg_sys;

use super::statement::text;

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

/// An object as a statement names it; to be looked up while that runs.
#[derive(Debug, PartialEq, Eq)]
pub struct MovedObject {
    kind: pg_sys::ObjectType::Type,
    relation: Option<RelationName>,
    node: *mut pg_sys::Node,
}

impl MovedObject {
    pub(super) unsafe fn of(
        kind: pg_sys::ObjectType::Type,
        relation: *mut pg_sys::RangeVar,
        node: *mut pg_sys::Node,
    ) -> Self {
        Self {
            kind,
            relation: (!relation.is_null()).then(|| RelationName::of(relation)),
            node,
        }
    }

    /// The extension that it belongs to: a relation, or what hangs on one, a function or a type.
    pub fn extension(&self) -> Option<pg_sys::Oid> {
        use pg_sys::ObjectType::{
            OBJECT_AGGREGATE, OBJECT_DOMAIN, OBJECT_FUNCTION, OBJECT_PROCEDURE, OBJECT_ROUTINE,
            OBJECT_TYPE,
        };
        let (class, oid) = match &self.relation {
            Some(relation) => (pg_sys::RelationRelationId, relation.find_table()?),
            // SAFETY: the statement's own node, which the grammar makes of this type, while the statement runs; what is missing is no
            // error, and nothing is locked.
            None => unsafe {
                match self.kind {
                    OBJECT_AGGREGATE | OBJECT_FUNCTION | OBJECT_PROCEDURE | OBJECT_ROUTINE => (
                        pg_sys::ProcedureRelationId,
                        pg_sys::LookupFuncWithArgs(self.kind, self.node.cast(), true),
                    ),
                    OBJECT_DOMAIN | OBJECT_TYPE => {
                        let name = pg_sys::makeTypeNameFromNameList(self.node.cast());
                        let oid = pg_sys::LookupTypeNameOid(std::ptr::null_mut(), name, true);
                        (pg_sys::TypeRelationId, oid)
                    }
                    _ => return None,
                }
            },
        };
        if oid == pg_sys::Oid::INVALID {
            return None;
        }
        extension_of(class, oid)
    }

    /// The extension that a table or a view belongs to.
    pub fn extension_of_relation(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
        extension_of(pg_sys::RelationRelationId, relation)
    }
}

fn extension_of(class: pg_sys::Oid, object: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in pg_depend.
    let extension = unsafe { pg_sys::getExtensionOfObject(class, object) };
    (extension != pg_sys::Oid::INVALID).then_some(extension)
}

unsafe fn is_index(relation: pg_sys::Oid) -> bool {
    let kind = pg_sys::get_rel_relkind(relation) as u8;
    [pg_sys::RELKIND_INDEX, pg_sys::RELKIND_PARTITIONED_INDEX].contains(&kind)
}

impl RelationName {
    /// The relation that is meant; of an index that of which it is.
    pub fn find_table(&self) -> Option<pg_sys::Oid> {
        let found = self.find()?;
        // SAFETY: look-ups in caches of the catalogs; what is missing is no error.
        let table = unsafe {
            if is_index(found) {
                pg_sys::IndexGetRelation(found, true)
            } else {
                found
            }
        };
        (table != pg_sys::Oid::INVALID).then_some(table)
    }

    /// Whether it is a view, whose options say what it shows.
    pub fn is_view(&self) -> bool {
        // SAFETY: a look-up in a cache of the catalogs.
        let is_view = |oid| unsafe { pg_sys::get_rel_relkind(oid) } as u8 == pg_sys::RELKIND_VIEW;
        self.find().is_some_and(is_view)
    }

    pub(super) unsafe fn of(variable: *mut pg_sys::RangeVar) -> Self {
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
