//! The rows that a set-returning function answers.

use pgrx::pg_sys;

use crate::errors::{Error, Result, SqlState};
use crate::pg::answer::{unzipped, Answer};
use crate::pg::interrupts;

/// The rows of a set-returning function on their way into its tuplestore.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
}

impl Rows {
    /// # Safety
    /// `fcinfo` is that of the call.
    pub(in crate::pg) unsafe fn materialize(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
        if info.is_null()
            || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo
            || (*info).allowedModes as u32 & materialize == 0
        {
            return Err(Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "set-valued function called in context that cannot accept a set",
            )
            .hint("Call it in FROM."));
        }
        let per_query = (*(*info).econtext).ecxt_per_query_memory;
        let old = pg_sys::MemoryContextSwitchTo(per_query);
        let mut desc: pg_sys::TupleDesc = std::ptr::null_mut();
        let mut result_type = pg_sys::Oid::INVALID;
        let class = pg_sys::get_call_result_type(fcinfo, &mut result_type, &mut desc);
        if class != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
            desc = pg_sys::CreateTemplateTupleDesc(1);
            pg_sys::TupleDescInitEntry(desc, 1, std::ptr::null(), result_type, -1, 0);
        }
        let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
        (*info).returnMode = materialize;
        (*info).setResult = store;
        (*info).setDesc = desc;
        pg_sys::MemoryContextSwitchTo(old);
        Ok(Self { store, desc })
    }

    /// Adds a row; as many values as the function has result columns. Looks at interrupts, because there may be millions.
    pub fn put(&mut self, columns: &[Answer]) {
        interrupts::check();
        let (mut values, mut nulls) = unzipped(columns);
        // SAFETY: store and desc live in the per-query context; the widths are checked.
        unsafe {
            assert_eq!((*self.desc).natts as usize, columns.len());
            pg_sys::tuplestore_putvalues(
                self.store,
                self.desc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}
