//! An output whose blocks several tasks change, one after another and always in the same order.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::blocks::Partition;
use crate::{Error, Result};

/// Set in a block's count while a task holds the block.
const HELD: usize = 1 << (usize::BITS - 1);

/// Parts that are handed from task to task: a sum that several tasks add to comes out the same
/// whatever the number of threads.
///
/// A task waits for its turn without end, so the tasks of earlier turns must have begun before it:
/// [`for_each_task`](super::for_each_task) begins them in the order of falling indices.
pub struct Relay<P> {
    partition: P,
    /// How many turns each part has had.
    turns: Vec<AtomicUsize>,
    broken: AtomicBool,
}

/// A part for the length of one turn; dropped, it goes to the next.
pub struct Turn<'r, P: Partition> {
    relay: &'r Relay<P>,
    index: usize,
    turn: usize,
    /// The part, to be changed.
    pub part: P::Part,
}

impl<P: Partition> Relay<P> {
    /// Nobody has had a turn.
    pub fn new(partition: P) -> Self {
        let turns = (0..partition.parts()).map(|_| AtomicUsize::new(0)).collect();
        Self { partition, turns, broken: AtomicBool::new(false) }
    }

    /// The parts.
    pub fn partition(&self) -> &P {
        &self.partition
    }

    /// Waits until the part at `index` has had `turn` turns, and takes it.
    ///
    /// # Errors
    /// If another task gave up, so that the turn will never come.
    ///
    /// # Panics
    /// If somebody has had this turn already.
    pub fn take(&self, index: usize, turn: usize) -> Result<Turn<'_, P>> {
        let turns = &self.turns[index];
        let mut patience = 0_u32;
        loop {
            let state =
                turns.compare_exchange(turn, turn | HELD, Ordering::Acquire, Ordering::Relaxed);
            match state {
                Ok(_) => break,
                Err(state) => assert!(state & !HELD < turn, "turn {turn} of part {index} is over"),
            }
            if self.broken.load(Ordering::Relaxed) {
                return Err(Error::Memory("another thread gave up".into()));
            }
            patience += 1;
            if patience < 1000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // SAFETY: whoever has exchanged the count holds the part alone until it is counted on.
        let part = unsafe { self.partition.part(index) };
        Ok(Turn { relay: self, index, turn, part })
    }

    /// Tells all who wait that a turn will not come.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Gives up if the thread panics before the guard is dropped.
    pub fn guard(&self) -> Guard<'_, P> {
        Guard(self)
    }
}

/// See [`Relay::guard`].
pub struct Guard<'r, P>(&'r Relay<P>);

impl<P> Drop for Guard<'_, P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

impl<P: Partition> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.relay.turns[self.index].store(self.turn + 1, Ordering::Release);
    }
}
