//! Values of type text in memory of our own: for rows that are written by the thousand, where a value each from the
//! server's allocator, with a guard around it, is 2 % of the time.

use pgrx::pg_sys::{self, Datum};

/// Texts one after another, each aligned and with a header as the server has it.
#[derive(Default)]
pub struct Texts {
    words: Vec<u64>,
}

/// Which of them.
#[derive(Clone, Copy)]
pub struct TextRef(usize);

impl Texts {
    const WORD: usize = size_of::<u64>();

    /// Makes room for so many more texts with so many bytes together.
    pub fn reserve(&mut self, texts: usize, bytes: usize) {
        let headers = texts * (pg_sys::VARHDRSZ + Self::WORD);
        self.words.reserve((bytes + headers) / Self::WORD);
    }

    /// Forgets all of them, and keeps no more memory than so many bytes.
    pub fn clear(&mut self, keep: usize) {
        self.words.clear();
        self.words.shrink_to(keep / Self::WORD);
    }

    /// Adds a text of less than 1 GB, in the database's encoding.
    pub fn push(&mut self, bytes: &[u8]) -> TextRef {
        let (start, size) = (self.words.len(), bytes.len() + pg_sys::VARHDRSZ);
        self.words.resize(start + size.div_ceil(Self::WORD), 0);
        // SAFETY: as many words as the value needs were added just now.
        unsafe {
            let value = self.words.as_mut_ptr().add(start).cast::<u8>();
            pgrx::varlena::set_varsize_4b(value.cast(), size as i32);
            let data = value.add(pg_sys::VARHDRSZ);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        }
        TextRef(start)
    }

    /// The value, valid until the next `push`, or the end of all of them.
    pub fn datum(&self, text: TextRef) -> Datum {
        Datum::from(self.words[text.0..].as_ptr())
    }
}
