//! Views of the shared segment: a fixed part and arrays behind it.

/// The fixed part at the start of the segment.
///
/// The segment is mapped for the life of the process, zeroed, large enough and aligned to a cache line;
/// `T` is made of atomics, so shared references from many processes are sound.
pub fn fixed<T>(base: *mut u8) -> &'static T {
    debug_assert!(base.addr().is_multiple_of(align_of::<T>()));
    // SAFETY: see above; every caller passes the segment's first byte.
    unsafe { &*base.cast::<T>() }
}

/// An array of `length` elements that starts `offset` bytes behind the fixed part, rounded up to a
/// cache line; the segment's size counts it (see `shared::segment_size`).
pub fn tail<T, E>(fixed: &T, offset: usize, length: usize) -> &[E] {
    let start = size_of::<T>().next_multiple_of(64) + offset;
    // SAFETY: within the segment, by its size; elements are made of atomics.
    unsafe {
        let base = std::ptr::from_ref(fixed).cast::<u8>().add(start);
        std::slice::from_raw_parts(base.cast::<E>(), length)
    }
}
