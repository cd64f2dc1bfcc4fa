//! Where the keys and values of a sequence lie: one behind the other, or in blocks of a pool.

use fusewire_simd::Element;

use crate::gemm::singles;
use crate::view::View;
use crate::{Error, Result};

/// The pool's blocks that the sequences of a batch own.
#[derive(Clone, Copy)]
pub struct Pages<'a> {
    /// The blocks of each sequence in order, `(batch, max_blocks)`.
    pub table: View<'a, i32, 2>,
}

/// Rows of keys or values for each sequence and head.
#[derive(Clone, Copy)]
pub struct Cache<'a, E> {
    /// `(batch, kv_heads, key_len, dim)`; with pages, `(num_blocks, kv_heads, block_size, dim)`.
    pub numbers: View<'a, E, 4>,
    /// None for sequences whose rows lie one behind the other.
    pub pages: Option<Pages<'a>>,
}

impl<'a, E: Element> Cache<'a, E> {
    /// The same of [`Element::Single`].
    pub(super) fn single(self) -> Cache<'a, E::Single> {
        Cache { numbers: singles(self.numbers), pages: self.pages }
    }

    /// Keys that a sequence has room for.
    pub(super) fn capacity(&self) -> usize {
        let [_, _, length, _] = self.numbers.shape();
        match self.pages {
            Some(Pages { table }) => table.columns().saturating_mul(length),
            None => length,
        }
    }

    /// Checks that each sequence of the batch has the blocks that its length needs.
    ///
    /// # Errors
    /// If the shapes do not fit together, or a block is not in the pool.
    pub(super) fn check(&self, batch: usize, length: impl Fn(usize) -> usize) -> Result<()> {
        let [sequences, _, block_size, _] = self.numbers.shape();
        if !self.numbers.has_unit_columns() {
            return Err(Error::Value("rows of key and value must be contiguous".into()));
        }
        let Some(Pages { table }) = self.pages else {
            return if sequences == batch {
                Ok(())
            } else {
                Err(Error::Value(format!(
                    "key and value must have {batch} sequences like query, but have {sequences}"
                )))
            };
        };
        if table.rows() != batch {
            return Err(Error::Value(format!(
                "block_table must have {batch} rows, but has {}",
                table.rows()
            )));
        }
        for row in 0..batch {
            for place in 0..length(row).div_ceil(block_size.max(1)) {
                let block = table.get([row, place]);
                if usize::try_from(block).map_or(true, |block| block >= sequences) {
                    return Err(Error::Value(format!(
                        "block_table[{row}, {place}] must lie between 0 and {}, but is {block}",
                        sequences as isize - 1
                    )));
                }
            }
        }
        Ok(())
    }

    /// The rows from `first` on, as many as there are places for them.
    #[inline(always)]
    pub(super) fn rows(&self, batch: usize, kv_head: usize, first: usize, rows: &mut [&'a [E]]) {
        let [_, _, length, _] = self.numbers.shape();
        let mut done = 0;
        while done < rows.len() {
            let key = first + done;
            let (sequence, start) = match self.pages {
                Some(Pages { table }) => (table.get([batch, key / length]) as usize, key % length),
                None => (batch, key),
            };
            let head = self.numbers.inner::<2, 2>([sequence, kv_head]);
            let end = rows.len().min(done + length - start);
            for (offset, row) in rows[done..end].iter_mut().enumerate() {
                *row = head.row(start + offset);
            }
            done = end;
        }
    }
}
