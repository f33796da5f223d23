//! Which partial indexes a row belongs to.
//!
//! The server prepares an index's predicate anew in each statement that writes: it is copied, planned, looked up and made ready, 1,600
//! instructions for a test for NULL and 4,000 with an operator, though it is asked of one row. A test of columns for NULL is read from it here.

use pgrx::pg_sys::{self, NodeTag, NullTestType};

use crate::pg::guard::guarded;

/// Partial indexes of a table that is written whose predicates only ask whether columns are NULL.
pub(super) struct Partial(Vec<Asked>);

struct Asked {
    index: *mut pg_sys::IndexInfo,
    tests: Vec<Test>,
}

struct Test {
    /// From 1.
    column: i16,
    is_null: bool,
}

// Called within our guard.
extern "C-unwind" {
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: std::ffi::c_int);
}

impl Partial {
    /// Takes the predicates from the indexes, so that the server prepares none: whoever writes a row says before to which it belongs.
    ///
    /// # Safety
    /// `info` has been opened for writing, and is used no longer than this.
    pub(super) unsafe fn take(info: *mut pg_sys::ResultRelInfo) -> Self {
        let count = (*info).ri_NumIndices as usize;
        let indexes = (0..count).map(|at| *(*info).ri_IndexRelationInfo.add(at));
        let partial = indexes.filter(|index| {
            // SAFETY: as many as said; one that is still being built keeps its own.
            unsafe { !(**index).ii_Predicate.is_null() && (**index).ii_ReadyForInserts }
        });
        let mut asked = Vec::new();
        for index in partial {
            if let Some(tests) = read((*index).ii_Predicate) {
                (*index).ii_Predicate = std::ptr::null_mut();
                asked.push(Asked { index, tests });
            }
        }
        Self(asked)
    }

    /// Says to which the row in this slot belongs.
    ///
    /// # Safety
    /// The indexes are still open, and the slot has a row of their table.
    pub(super) unsafe fn choose(&self, slot: *mut pg_sys::TupleTableSlot) {
        let tests = self.0.iter().flat_map(|asked| &asked.tests);
        let Some(last) = tests.map(|test| test.column).max() else {
            return;
        };
        if (*slot).tts_nvalid < last {
            guarded(|| slot_getsomeattrs_int(slot, i32::from(last)));
        }
        for asked in &self.0 {
            let holds =
                |test: &Test| *(*slot).tts_isnull.add(test.column as usize - 1) == test.is_null;
            (*asked.index).ii_ReadyForInserts = asked.tests.iter().all(holds);
        }
    }
}

/// None: it asks something else, too.
///
/// # Safety
/// A list of expressions, all of which are to hold.
unsafe fn read(predicate: *mut pg_sys::List) -> Option<Vec<Test>> {
    let count = (*predicate).length as usize;
    (0..count)
        .map(|at| {
            // SAFETY: as many as said; each node begins with its tag.
            unsafe {
                let node = (*(*predicate).elements.add(at))
                    .ptr_value
                    .cast::<pg_sys::Node>();
                if (*node).type_ != NodeTag::T_NullTest {
                    return None;
                }
                let test = &*node.cast::<pg_sys::NullTest>();
                if test.argisrow || (*test.arg).type_ != NodeTag::T_Var {
                    return None;
                }
                let column = (*test.arg.cast::<pg_sys::Var>()).varattno;
                (column > 0).then_some(Test {
                    column,
                    is_null: test.nulltesttype == NullTestType::IS_NULL,
                })
            }
        })
        .collect()
}
