//! Items in the order in which they came, which can be cut back to a length.

use super::item::Item;

/// Above this much, items of the current savepoint go out early.
pub(super) const MOST_BYTES: usize = 1 << 20;
pub(super) const MOST_ITEMS: usize = 8192;

/// Items in order, and what they take.
pub(super) struct ItemList {
    pub(super) items: Vec<Item>,
    pub(super) bytes: usize,
}

/// How much of a pile there was at some time.
#[derive(Clone, Copy)]
pub(super) struct Length {
    pub(super) items: usize,
    bytes: usize,
}

impl ItemList {
    pub(super) const EMPTY: Self = Self {
        items: Vec::new(),
        bytes: 0,
    };

    pub(super) fn length(&self) -> Length {
        Length {
            items: self.items.len(),
            bytes: self.bytes,
        }
    }

    /// Whether the items from some height on should go out: the pile is full, and they are a good part of it, because else
    /// each new item of a savepoint would go out alone where the items below have filled the pile.
    pub(super) fn is_full(&self, from: Length) -> bool {
        const A_PART: usize = 8;
        let is_over = |bytes, items| bytes >= MOST_BYTES || items >= MOST_ITEMS;
        is_over(self.bytes, self.items.len())
            && is_over(
                (self.bytes - from.bytes) * A_PART,
                (self.items.len() - from.items) * A_PART,
            )
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push(item);
    }

    pub(super) fn cut(&mut self, to: Length) {
        self.items.truncate(to.items);
        self.bytes = to.bytes;
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.bytes -= self.items.remove(index).bytes();
    }

    pub(super) fn drop_between(&mut self, from: Length, to: Length) {
        self.items.drain(from.items..to.items);
        self.bytes -= to.bytes - from.bytes;
    }

    pub(super) fn take(&mut self, from: Length) -> Vec<Item> {
        self.bytes = from.bytes;
        self.items.split_off(from.items)
    }

    /// Forgets all items; the memory of a few is kept for the next transaction.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub(super) fn clear(&mut self) {
        const KEPT: usize = 256;
        self.items.clear();
        self.items.shrink_to(KEPT);
        self.bytes = 0;
    }

    /// Takes all items, and the memory that they are in.
    pub(super) fn take_all(&mut self) -> Vec<Item> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }

    /// Gives back the memory that `take_all` took, unless items were added meanwhile.
    pub(super) fn reuse(&mut self, items: Vec<Item>) {
        if self.items.capacity() == 0 {
            self.items = items;
            self.clear();
        }
    }
}
