//! The keys of the rows that a statement has changed, for one notice of all of them.

/// The keys of a statement's rows, and how many rows there were.
pub struct Keys {
    pub(super) new: Vec<u8>,
    pub(super) old: Vec<u8>,
    pub(super) count: u64,
    pub(super) limit: usize,
    pub(super) is_cut: bool,
}

impl Keys {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            new: Vec::new(),
            old: Vec::new(),
            count: 0,
            limit,
            is_cut: false,
        }
    }

    /// Adds rows that were counted elsewhere, as `Shape::add` would have.
    pub fn merge(&mut self, others: &Keys) {
        self.count += others.count;
        if self.is_cut || others.is_cut {
            self.is_cut = true;
            return;
        }
        let before = self.length();
        for (list, more) in [(&mut self.new, &others.new), (&mut self.old, &others.old)] {
            if !more.is_empty() {
                append(list, |out| out.extend_from_slice(more));
            }
        }
        if self.new.len() + self.old.len() > self.limit {
            self.cut(before);
        }
    }

    /// Bytes of keys, and of old keys.
    pub fn length(&self) -> (usize, usize) {
        (self.new.len(), self.old.len())
    }

    /// Leaves out what came after `length`, and whatever will come.
    pub fn cut(&mut self, length: (usize, usize)) {
        self.new.truncate(length.0);
        self.old.truncate(length.1);
        self.is_cut = true;
    }
}

pub(super) fn append(list: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if !list.is_empty() {
        list.push(b',');
    }
    write(list);
}
