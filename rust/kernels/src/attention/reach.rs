//! Which keys a query reaches: bands and lengths, as ranges that tiles are cut from.

use std::ops::Range;

use super::tile::{Group, KEYS, PAIR};

/// Which query and key the diagonal of a [`Band`] joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// The first of each.
    TopLeft,
    /// The last of each (within the lengths of the batch row).
    BottomRight,
}

/// How far a query sees along the keys, counted from the diagonal; `None` is without bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Keys before the diagonal.
    pub left: Option<usize>,
    /// Keys behind the diagonal: 0 is causal.
    pub right: Option<usize>,
    /// Where the diagonal lies.
    pub alignment: Alignment,
}

impl Band {
    /// Every key.
    pub const FULL: Self = Self { left: None, right: None, alignment: Alignment::TopLeft };
}

/// The band of one sequence, resolved to key positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Queries that exist.
    pub(super) queries: usize,
    /// Keys that exist.
    pub(super) keys: usize,
    left: Option<isize>,
    right: Option<isize>,
    /// The key on the diagonal of query 0.
    diagonal: isize,
}

/// Neighbouring keys that a block of queries is multiplied with in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) keys: Range<usize>,
    /// Whether some query of the block does not reach some of these keys.
    pub(super) edge: bool,
    /// Whether the mask may add something here.
    pub(super) masked: bool,
}

impl Band {
    /// The reach in a sequence of `queries` and `keys`.
    pub(super) fn reach(self, queries: usize, keys: usize) -> Reach {
        let bound = |bound: Option<usize>| bound.map(|n| isize::try_from(n).unwrap_or(isize::MAX));
        Reach {
            queries,
            keys,
            left: bound(self.left),
            right: bound(self.right),
            diagonal: match self.alignment {
                Alignment::TopLeft => 0,
                Alignment::BottomRight => keys as isize - queries as isize,
            },
        }
    }
}

impl Reach {
    /// The keys that `query` reaches; both ends only grow from query to query.
    pub(super) fn keys(&self, query: usize) -> Range<usize> {
        let diagonal = self.diagonal(query);
        let keys = self.keys as isize;
        let start = self.left.map_or(0, |left| diagonal.saturating_sub(left).clamp(0, keys));
        let end = self.right.map_or(keys, |right| diagonal.saturating_add(right).saturating_add(1));
        start as usize..end.clamp(start, keys) as usize
    }

    /// The key on the diagonal of `query`, which may lie outside of the sequence.
    pub(super) fn diagonal(&self, query: usize) -> isize {
        query as isize + self.diagonal
    }

    /// The keys from the first to the last that any query of a block reaches, in whole pairs.
    pub(super) fn span(&self, queries: Range<usize>) -> Range<usize> {
        let (start, end) = (self.keys(queries.start).start, self.keys(queries.end - 1).end);
        if start == end { end..end } else { start / PAIR * PAIR..self.whole(end) }
    }

    /// About how many pairs of a query of a block and a key that it reaches there are.
    pub(super) fn pairs(&self, queries: Range<usize>) -> usize {
        let ends = [queries.start, queries.end - 1].map(|query| self.keys(query).len());
        (ends[0] + ends[1]) / 2 * queries.len()
    }

    /// `end` or, if there is one, the key behind it, so that what ends there are whole pairs.
    fn whole(&self, end: usize) -> usize {
        end.next_multiple_of(PAIR).min(self.keys)
    }

    /// The keys of `within` that the queries of a block reach, in segments of at most [`KEYS`] that
    /// begin at an even key, and end at one or at the last of all: in whole pairs.
    pub(super) fn segments(
        &self,
        queries: Range<usize>,
        within: Range<usize>,
    ) -> impl Iterator<Item = Segment> + use<> {
        let (first, last) = (self.keys(queries.start), self.keys(queries.end - 1));
        let Range { start, end } = self.span(queries);
        // What the last query reaches at its start and the first at its end, all others reach too.
        // The keys on a diagonal are counted to the edges, whose groups then meet whole vectors.
        let inner_start = if last.start > start { last.start + 1 } else { start };
        let inner_start = self.whole(inner_start);
        let inner_end = if first.end < end { first.end.saturating_sub(1) } else { end };
        let inner_end = if inner_end < end { inner_end / PAIR * PAIR } else { end };
        let inner = if inner_start < inner_end { inner_start..inner_end } else { start..start };
        let parts = [
            Segment { keys: start..inner.start, edge: true, masked: true },
            Segment { keys: inner.clone(), edge: false, masked: true },
            Segment { keys: inner.end..end, edge: true, masked: true },
        ];
        parts.into_iter().map(move |part| part.within(&within)).flat_map(Segment::split)
    }

    /// The pieces of a segment that products are made of: all of it, or at an edge, where columns
    /// of queries fall away from key to key, keys and columns by the `grain`, of `width` columns.
    pub(super) fn groups(
        self,
        queries: Range<usize>,
        segment: &Segment,
        [grain, width]: [usize; 2],
    ) -> impl Iterator<Item = Group> + use<> {
        let Segment { keys, edge, .. } = segment.clone();
        let step = if edge { grain } else { keys.len() };
        (0..keys.len()).step_by(step).filter_map(move |start| {
            let end = keys.len().min(start + step);
            let seeing = if edge {
                self.queries(queries.clone(), keys.start + start..keys.start + end)
            } else {
                0..queries.len()
            };
            let end_column = seeing.end.next_multiple_of(grain).min(width);
            let columns = seeing.start / grain * grain..end_column;
            (!seeing.is_empty()).then_some(Group { keys: start..end, columns })
        })
    }

    /// The keys of a segment, counted from its first, in [`Reach::groups`] that hold any key that
    /// the queries in `columns` of a block reach.
    pub(super) fn rows(
        &self,
        queries: Range<usize>,
        segment: &Segment,
        columns: Range<usize>,
        grain: usize,
    ) -> Range<usize> {
        let last = (queries.start + columns.end).min(queries.end) - 1;
        let keys = &segment.keys;
        let inside = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
        let start = inside(self.keys(queries.start + columns.start).start);
        let end = inside(self.keys(last).end);
        if start < end {
            start / grain * grain..end.next_multiple_of(grain).min(keys.len())
        } else {
            0..0
        }
    }

    /// The queries of a block, counted from its first, that reach any of `keys`.
    fn queries(&self, block: Range<usize>, keys: Range<usize>) -> Range<usize> {
        let count = |reaches: &dyn Fn(Range<usize>) -> bool| {
            let (mut low, mut high) = (block.start, block.end);
            while low < high {
                let middle = low.midpoint(high);
                if reaches(self.keys(middle)) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low - block.start
        };
        let start = count(&|reached| reached.end <= keys.start);
        start..count(&|reached| reached.start < keys.end).max(start)
    }
}

impl Segment {
    fn within(self, keys: &Range<usize>) -> Self {
        let start = self.keys.start.clamp(keys.start, keys.end);
        Self { keys: start..self.keys.end.clamp(start, keys.end), ..self }
    }

    /// Pieces of nearly equal size, at most [`KEYS`].
    fn split(self) -> impl Iterator<Item = Self> {
        let Self { keys, edge, masked } = self;
        let pieces = keys.len().div_ceil(KEYS);
        // Whole groups at an edge, else a multiple of four rows, which register tiles divide well.
        let size = keys.len().div_ceil(pieces.max(1)).next_multiple_of(if edge { 16 } else { 4 });
        let piece = move |index| {
            let start = keys.start + index * size;
            Self { keys: start..keys.end.min(start + size), edge, masked }
        };
        (0..pieces).map(piece).filter(|segment| !segment.keys.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{Alignment, Reach};
    use crate::attention::tile::KEYS;

    #[test]
    fn segments_cover_what_is_reached_and_inner_ones_need_no_mask() {
        for (left, right) in [(None, None), (None, Some(0)), (Some(3), Some(2)), (Some(200), None)]
        {
            for (queries, keys) in [(1, 1), (5, 300), (64, 64), (130, 64), (64, 0), (300, 300)] {
                for alignment in [Alignment::TopLeft, Alignment::BottomRight] {
                    let diagonal = match alignment {
                        Alignment::TopLeft => 0,
                        Alignment::BottomRight => keys as isize - queries as isize,
                    };
                    let reach = Reach { queries, keys, left, right, diagonal };
                    for start in (0..queries).step_by(64) {
                        check(reach, start..queries.min(start + 64));
                    }
                }
            }
        }
    }

    fn check(reach: Reach, block: std::ops::Range<usize>) {
        let mut seen = vec![0; reach.keys];
        for segment in reach.segments(block.clone(), 0..reach.keys) {
            assert!(!segment.keys.is_empty() && segment.keys.len() <= KEYS);
            for key in segment.keys.clone() {
                seen[key] += 1;
                let inside = |query| reach.keys(query).contains(&key);
                assert!(segment.edge || block.clone().all(inside), "{segment:?} of {block:?}");
            }
            let some = reach.queries(block.clone(), segment.keys.clone());
            for query in block.clone() {
                let reached = reach.keys(query);
                let any = segment.keys.clone().any(|key| reached.contains(&key));
                assert!(!any || some.contains(&(query - block.start)), "{query} of {segment:?}");
            }
        }
        for (key, &times) in seen.iter().enumerate() {
            assert!(times <= 1);
            let any = block.clone().any(|query| reach.keys(query).contains(&key));
            assert!(times == 1 || !any, "key {key} of {block:?} with {reach:?}");
        }
    }
}
