//! Calling a handler: an SQL function in any language, by its cached look-up, with its result as jsonb.

use crate::errors::Result;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::pg::function::Answer;
use crate::pg::identity;
use crate::pg::memory::Context;
use crate::pg::subtransaction::protected;

/// A function ready to be called; valid for as long as the context it was looked up in.
pub struct Callable {
    call: pg_sys::FunctionCallInfo,
    takes_argument: bool,
    /// How a result becomes jsonb; None: it is void or jsonb already.
    to_jsonb: Option<pg_sys::FunctionCallInfo>,
    returns_void: bool,
}

unsafe fn prepare(function: Oid, nargs: usize, context: &Context) -> pg_sys::FunctionCallInfo {
    let size =
        size_of::<pg_sys::FunctionCallInfoBaseData>() + nargs * size_of::<pg_sys::NullableDatum>();
    let memory = context.raw();
    let info = pg_sys::MemoryContextAllocZero(memory, size_of::<pg_sys::FmgrInfo>())
        .cast::<pg_sys::FmgrInfo>();
    pg_sys::fmgr_info_cxt(function, info, memory);
    let call =
        pg_sys::MemoryContextAllocZero(memory, size).cast::<pg_sys::FunctionCallInfoBaseData>();
    (*call).flinfo = info;
    (*call).nargs = nargs as i16;
    call
}

impl Callable {
    /// Looks a function up. Whether the current user may execute it is the caller's to check.
    pub fn new(function: Oid, takes_argument: bool, returns: Oid, context: &Context) -> Self {
        // SAFETY: catalog look-ups inside a transaction; all is allocated in `context`.
        unsafe {
            let call = prepare(function, usize::from(takes_argument), context);
            let needs_conversion = returns != pg_sys::VOIDOID && returns != pg_sys::JSONBOID;
            let to_jsonb = needs_conversion.then(|| {
                let convert = prepare(Oid::from(pg_sys::F_TO_JSONB), 1, context);
                // to_jsonb learns the type of its argument from the call's expression.
                let old = pg_sys::MemoryContextSwitchTo(context.raw());
                let argument = pg_sys::makeNullConst(returns, -1, Oid::INVALID);
                let expression = pg_sys::makeFuncExpr(
                    Oid::from(pg_sys::F_TO_JSONB),
                    pg_sys::JSONBOID,
                    pg_sys::lappend(std::ptr::null_mut(), argument.cast()),
                    Oid::INVALID,
                    Oid::INVALID,
                    pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
                );
                (*(*convert).flinfo).fn_expr = expression.cast();
                pg_sys::MemoryContextSwitchTo(old);
                convert
            });
            Self {
                call,
                takes_argument,
                to_jsonb,
                returns_void: returns == pg_sys::VOIDOID,
            }
        }
    }

    /// Calls the function; its result is jsonb, or NULL for void. Inside a subtransaction, with an
    /// active snapshot; a result by reference lives in the current memory context.
    pub fn call(&self, argument: Datum) -> Result<Answer> {
        identity::expect_no_owner();
        // SAFETY: the calls were prepared for one argument or none; `invoke` catches errors. A SIGTERM
        // ends the process inside, as it does a backend in a function.
        unsafe {
            if self.takes_argument {
                set_argument(self.call, argument);
            }
            let result = invoke(self.call)?;
            if self.returns_void || (*self.call).isnull {
                return Ok(Answer::Null);
            }
            let Some(convert) = self.to_jsonb else {
                return Ok(Answer::Datum(result));
            };
            set_argument(convert, result);
            let converted = invoke(convert)?;
            Ok(if (*convert).isnull {
                Answer::Null
            } else {
                Answer::Datum(converted)
            })
        }
    }
}

unsafe fn set_argument(call: pg_sys::FunctionCallInfo, value: Datum) {
    let arguments = (*call).args.as_mut_slice(1);
    arguments[0].value = value;
    arguments[0].isnull = false;
}

/// Calls through the function manager with an ERROR as data.
unsafe fn invoke(call: pg_sys::FunctionCallInfo) -> Result<Datum> {
    let function = (*(*call).flinfo).fn_addr.expect("fmgr_info sets it");
    (*call).isnull = false;
    protected(|| function(call))
}

/// Copies a result into memory that outlives the job.
pub fn keep_result(result: Answer, context: &Context) -> Answer {
    match result {
        Answer::Null => Answer::Null,
        // SAFETY: a jsonb value.
        Answer::Datum(datum) => context.enter(|| unsafe {
            Answer::Datum(Datum::from(pg_sys::pg_detoast_datum_copy(
                datum.cast_mut_ptr(),
            )))
        }),
    }
}
