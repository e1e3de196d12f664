//! An input cut into the pieces in which it could come off a socket.

/// Takes the first byte of the input, which says how the rest is cut: 0 not at all, else by a generator that it seeds.
pub fn cut(input: &[u8]) -> Option<(&[u8], impl Iterator<Item = usize>)> {
    let (seed, rest) = input.split_first()?;
    let (mut state, mut at, len) = (u32::from(*seed), 0, rest.len());
    let whole = *seed == 0;
    let ends = std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let step = if whole { len } else { 1 << (state >> 28) };
        at = (at + step).min(len);
        Some(at)
    });
    Some((rest, ends))
}
