//! What a caller has passed, element by element.

use crate::pg::interrupts;

/// Elements of an array, or of JSON. Each step looks at interrupts, because a caller may pass millions, and whoever loops over them is to be
/// cancelled meanwhile.
pub struct Elements<T>(std::vec::IntoIter<T>);

impl<T> Elements<T> {
    pub(in crate::pg) fn new(elements: Vec<T>) -> Self {
        Self(elements.into_iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

impl<T> Iterator for Elements<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        interrupts::check();
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> ExactSizeIterator for Elements<T> {}
