//! Packed weights that are kept from call to call, for as long as the weights stay what they are.
//!
//! Nobody tells of a change: arrays have no counter of writes, and a tensor's is not raised by what
//! is written through `.data` or NumPy. So a call reads the weight once more, which takes less time
//! than packing it, and compares its fingerprint with that of what was packed.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex};

use fusewire_simd::{Element, Kernel, Storage, bytes};

use crate::Result;
use crate::view::View;

/// Bytes of packed weights that are kept at most; beyond, those go that were not used for longest.
const MOST_BYTES: usize = 128 << 20;

/// Chains of a fingerprint: eight of the widest registers.
const CHAINS: usize = 128;

/// What a weight holds, in chains of which each sees the bits of every 128th 32-bit word.
///
/// A step is a bijection of the chain, so a single change always shows; others would have to agree by
/// chance in 32 bits of every chain that they touch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint([u32; CHAINS]);

struct Reader<'a, E>(View<'a, E, 2>);

impl<E: Element> Kernel<E> for Reader<'_, E> {
    type Output = Fingerprint;

    #[inline(always)]
    fn run<I: Storage<E>>(self, _isa: I) -> Fingerprint {
        let mut chains = [0; CHAINS];
        for row in 0..self.0.rows() {
            let (words, rest) = bytes(self.0.row(row)).as_chunks::<4>();
            let (whole, others) = words.as_chunks::<CHAINS>();
            for words in whole {
                for (chain, &word) in chains.iter_mut().zip(words) {
                    *chain = step(*chain, u32::from_ne_bytes(word));
                }
            }
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            for (chain, &word) in chains.iter_mut().zip(others.iter().chain([&last])) {
                *chain = step(*chain, u32::from_ne_bytes(word));
            }
        }
        Fingerprint(chains)
    }
}

/// Neither addition nor multiplication moves a bit down, so words are joined by exclusive or, and
/// turned.
#[inline(always)]
fn step(chain: u32, word: u32) -> u32 {
    (chain ^ word).rotate_left(13).wrapping_mul(0x9E37_79B1)
}

/// Where a weight lies, and what it is packed into.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    start: usize,
    shape: [usize; 2],
    row_stride: isize,
    /// The packed type, which is another one for each cell and kind of number.
    packed: TypeId,
}

struct Entry {
    key: Key,
    fingerprint: Fingerprint,
    packed: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

/// Least recently used first.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// What `pack` makes of `weight`; kept from an earlier call where the weight lies where it lay and holds
/// what it held.
///
/// # Errors
/// Those of `pack`.
pub(super) fn packed<P: Send + Sync + 'static, E: Element, I: Storage<E>>(
    isa: I,
    weight: View<'_, E, 2>,
    pack: impl FnOnce() -> Result<P>,
) -> Result<Arc<P>> {
    if !weight.has_unit_columns() {
        return Ok(Arc::new(pack()?));
    }
    let key = Key {
        start: weight.as_ptr().addr(),
        shape: weight.shape(),
        row_stride: weight.strides()[0],
        packed: TypeId::of::<P>(),
    };
    let fingerprint = isa.vectorize(Reader(weight));
    if let Some(packed) = find(key, &fingerprint).and_then(|packed| packed.downcast().ok()) {
        return Ok(packed);
    }
    let packed = Arc::new(pack()?);
    let bytes = weight.rows() * weight.columns() * size_of::<E>();
    if bytes <= MOST_BYTES {
        keep(Entry { key, fingerprint, packed: Arc::clone(&packed) as _, bytes });
    }
    Ok(packed)
}

/// The entry that is still true; one that is not is forgotten.
///
/// Nothing is found while the entries are busy, or left locked by the parent of a forked process.
fn find(key: Key, fingerprint: &Fingerprint) -> Option<Arc<dyn Any + Send + Sync>> {
    let mut entries = ENTRIES.try_lock().ok()?;
    let index = entries.iter().position(|entry| entry.key == key)?;
    let entry = entries.remove(index);
    let packed = (entry.fingerprint == *fingerprint).then(|| Arc::clone(&entry.packed));
    if packed.is_some() {
        entries.push(entry);
    }
    packed
}

fn keep(entry: Entry) {
    let Ok(mut entries) = ENTRIES.try_lock() else { return };
    let mut bytes = entry.bytes;
    let newest = entries.iter().rev().take_while(|entry| {
        bytes += entry.bytes;
        bytes <= MOST_BYTES
    });
    let oldest = entries.len() - newest.count();
    entries.drain(..oldest);
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use fusewire_simd::{Element, Kernel, Lanes};

    use super::packed;
    use crate::view::View;

    /// Whether a call packs again after what is done to a weight.
    fn packs_after(weight: &mut [f32], change: impl FnOnce(&mut [f32])) -> bool {
        struct Call<'a>(&'a [f32], &'a mut usize);
        impl Kernel<f32> for Call<'_> {
            type Output = usize;
            fn run<I: Lanes<f32>>(self, isa: I) -> usize {
                let view = View::contiguous(self.0, [3, self.0.len() / 3]).expect("3 rows");
                let pack = || {
                    *self.1 += 1;
                    Ok(self.0.len())
                };
                *packed(isa, view, pack).expect("packing does not fail")
            }
        }
        let mut counts = [0; 2];
        assert_eq!(f32::dispatch(Call(weight, &mut counts[0])), weight.len());
        change(weight);
        assert_eq!(f32::dispatch(Call(weight, &mut counts[1])), weight.len());
        counts[1] > 0
    }

    #[test]
    fn weights_are_packed_again_when_they_change() {
        let mut weight: Vec<f32> = (0..3 * 300).map(|i| i as f32).collect();
        // Where another test has the lock, a call packs once more than it had to.
        assert!((0..100).any(|_| !packs_after(&mut weight, |_| ())));
        for at in [1, 127, 128, 299, 300, 899] {
            assert!(packs_after(&mut weight, |weight| weight[at] = -weight[at]));
            assert!(packs_after(&mut weight, |weight| weight[at] *= 2.0));
        }
        assert!(packs_after(&mut weight, |weight| weight.iter_mut().for_each(|w| *w = -*w)));
        assert!(packs_after(&mut weight, |weight| weight.iter_mut().for_each(|w| *w *= 0.5)));
        assert!(packs_after(&mut weight, |weight| weight.swap(3, 131)));
    }
}
