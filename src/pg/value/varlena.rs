//! Values of variable length, which may be compressed or stored elsewhere.

use pgrx::pg_sys::{self, Datum};

/// A value as a row has it.
pub struct Varlena(*mut pg_sys::varlena);

impl Varlena {
    /// # Safety
    /// A non-null value of a type of variable length, which stays as long as this.
    pub unsafe fn of(datum: Datum) -> Self {
        Self(datum.cast_mut_ptr())
    }

    /// The content, when it stands here as it is.
    fn inline(&self) -> Option<&[u8]> {
        // SAFETY: a valid varlena (see of); headers as varatt.h has them.
        unsafe {
            let start = self.0.cast::<u8>();
            let (header, size) = if pgrx::varlena::varatt_is_1b(self.0) {
                if pgrx::varlena::varatt_is_1b_e(self.0) {
                    return None;
                }
                (1, pgrx::varlena::varsize_1b(self.0))
            } else if pgrx::varlena::varatt_is_4b_u(self.0) {
                (4, pgrx::varlena::varsize_4b(self.0))
            } else {
                return None;
            };
            Some(std::slice::from_raw_parts(start.add(header), size - header))
        }
    }

    /// Bytes of the content, fetched and decompressed.
    pub fn length(&self) -> usize {
        match self.inline() {
            Some(content) => content.len(),
            // SAFETY: reads the header, of a stored value too.
            None => unsafe { pg_sys::toast_raw_datum_size(Datum::from(self.0)) - pg_sys::VARHDRSZ },
        }
    }

    /// Gives the content, fetched and decompressed if need be.
    pub fn with_content<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        if let Some(content) = self.inline() {
            return work(content);
        }
        // SAFETY: a valid varlena; the copy is freed here, and by its memory context after an ERROR.
        unsafe {
            let plain = Self(pg_sys::pg_detoast_datum_packed(self.0));
            let answer = work(plain.inline().unwrap_or_default());
            if !std::ptr::eq(plain.0, self.0) {
                pg_sys::pfree(plain.0.cast());
            }
            answer
        }
    }

    /// What stands in the row: header, and content or pointer.
    fn image(&self) -> &[u8] {
        // SAFETY: a valid varlena.
        unsafe {
            std::slice::from_raw_parts(self.0.cast::<u8>(), pgrx::varlena::varsize_any(self.0))
        }
    }

    /// Whether both have the same content. Two pointers to one stored value are equal as they are.
    pub fn is_equal(&self, other: &Varlena) -> bool {
        match (self.inline(), other.inline()) {
            (Some(this), Some(other)) => this == other,
            _ if self.image() == other.image() => true,
            // SAFETY: reads the headers, of stored values too.
            _ if unsafe {
                pg_sys::toast_raw_datum_size(Datum::from(self.0))
                    != pg_sys::toast_raw_datum_size(Datum::from(other.0))
            } =>
            {
                false
            }
            _ => self.with_content(|this| other.with_content(|other| this == other)),
        }
    }

    /// The value with a four-byte header, aligned, as most code of the server wants it. In the current
    /// memory context if it is a copy.
    pub fn plain(&self) -> *mut pg_sys::varlena {
        // SAFETY: a valid varlena.
        unsafe { pg_sys::pg_detoast_datum(self.0) }
    }
}
