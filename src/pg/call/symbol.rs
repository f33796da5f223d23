//! C symbols of SQL functions and of trigger functions, by version 1 of the calling convention.

/// Defines the C symbol of an SQL function.
///
/// ```ignore
/// sql_function!(pushy_queue_pause_v1, |call| {
///     let queue = call.text("queue", 0)?;
///     pause(&queue)            // Result<impl IntoAnswer>
/// });
/// ```
#[macro_export]
macro_rules! sql_function {
    ($symbol:ident, |$call:ident| $body:expr) => {
        const _: () = {
            #[no_mangle]
            pub unsafe extern "C-unwind" fn $symbol(
                fcinfo: pgrx::pg_sys::FunctionCallInfo,
            ) -> pgrx::pg_sys::Datum {
                // SAFETY: called by the function manager with a valid fcinfo.
                let $call = unsafe { $crate::pg::function::Call::new(fcinfo) };
                let body = move || {
                    let value = $body?;
                    $crate::errors::Result::Ok($crate::pg::answer::IntoAnswer::into_answer(value))
                };
                let guarded =
                    move || body().map_err(|error| $crate::pg::ereport::Ready::new(&error));
                // SAFETY: the guard ends every unwinding and longjmp from inside; behind it nothing is
                // left to drop.
                unsafe {
                    match $crate::pg::panics::edge(guarded) {
                        Ok(answer) => $call.finish(answer),
                        Err(error) => error.raise(),
                    }
                }
            }

            $crate::function_info!($symbol);
        };
    };
}

/// Defines the C symbol of a trigger function: `trigger_function!(symbol, "name()", |firing| body)`, where the
/// body answers `Result` of a `trigger::Answer`; with another kind of firing than an AFTER trigger's before the body.
#[macro_export]
macro_rules! trigger_function {
    ($symbol:ident, $name:literal, |$firing:ident| $body:expr) => {
        $crate::trigger_function!($symbol, $name, $crate::pg::trigger::Firing, |$firing| $body);
    };
    ($symbol:ident, $name:literal, $kind:ty, |$firing:ident| $body:expr) => {
        const _: () = {
            #[no_mangle]
            pub unsafe extern "C-unwind" fn $symbol(
                fcinfo: pgrx::pg_sys::FunctionCallInfo,
            ) -> pgrx::pg_sys::Datum {
                const NAME: &str = $name;
                let body = |$firing: $kind| $body;
                let guarded = move || {
                    // SAFETY: called by the function manager with a valid fcinfo.
                    unsafe { <$kind>::of(fcinfo, NAME) }
                        .and_then(body)
                        .map_err(|error| $crate::pg::ereport::Ready::new(&error))
                };
                // SAFETY: the guard ends every unwinding and longjmp from inside; behind it nothing is
                // left to drop.
                unsafe {
                    match $crate::pg::panics::edge(guarded) {
                        Ok(answer) => $crate::pg::trigger::Answer::datum(answer),
                        Err(error) => error.raise(),
                    }
                }
            }

            $crate::function_info!($symbol);
        };
    };
}

/// The `pg_finfo_` record that tells the server a symbol speaks calling convention 1.
#[macro_export]
macro_rules! function_info {
    ($symbol:ident) => {
        #[export_name = concat!("pg_finfo_", stringify!($symbol))]
        pub extern "C" fn function_info() -> &'static pgrx::pg_sys::Pg_finfo_record {
            static INFO: pgrx::pg_sys::Pg_finfo_record =
                pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &INFO
        }
    };
}
