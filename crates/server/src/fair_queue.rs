//! A queue in which no one waits behind all the questions of somebody else.
//!
//! Each client has a line of its own and the lines take turns. The one who takes is a thread that may sleep;
//! those who put are tasks that may not, and are refused where the queue is full.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug)]
struct Lines<T> {
    /// The client whose turn is next comes first; no line is empty.
    waiting: VecDeque<(String, VecDeque<T>)>,
    len: usize,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lines: Mutex<Lines<T>>,
    arrived: Condvar,
    most: usize,
}

/// The queue is full or closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl<T: Clone> FairQueue<T> {
    /// A queue of at most `most` items.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            lines: Mutex::new(Lines {
                waiting: VecDeque::new(),
                len: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            most,
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines<T>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end of the client's line.
    pub(crate) fn push(&self, client: &str, item: T) -> Result<(), Refused> {
        let mut lines = self.lines();
        if lines.closed || lines.len >= self.most {
            return Err(Refused);
        }
        lines.len += 1;
        match lines.waiting.iter_mut().find(|(name, _)| name == client) {
            Some((_, line)) => line.push_back(item),
            None => lines
                .waiting
                .push_back((client.to_owned(), VecDeque::from([item]))),
        }
        drop(lines);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the item whose turn it is, waiting for one; `None` once closed.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut lines = self.lines();
        loop {
            if lines.closed {
                return None;
            }
            if let Some((client, mut line)) = lines.waiting.pop_front() {
                let item = line.pop_front();
                if !line.is_empty() {
                    lines.waiting.push_back((client, line));
                }
                if item.is_some() {
                    lines.len -= 1;
                    return item;
                }
                continue;
            }
            lines = self
                .arrived
                .wait(lines)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes out the items that `unwanted` says yes to.
    pub(crate) fn remove(&self, unwanted: impl Fn(&T) -> bool) {
        let mut lines = self.lines();
        for (_, line) in &mut lines.waiting {
            line.retain(|item| !unwanted(item));
        }
        lines.waiting.retain(|(_, line)| !line.is_empty());
        lines.len = lines.waiting.iter().map(|(_, line)| line.len()).sum();
    }

    /// The items in the order in which they will be taken, if nothing comes in between.
    pub(crate) fn order(&self) -> Vec<T> {
        let lines = self.lines();
        let longest = lines.waiting.iter().map(|(_, line)| line.len()).max();
        let rounds = 0..longest.unwrap_or(0);
        let round = |at: usize| {
            lines
                .waiting
                .iter()
                .filter_map(move |(_, line)| line.get(at))
        };
        rounds.flat_map(round).cloned().collect()
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.lines().len
    }

    /// Refuses everything from now on and wakes whoever waits.
    pub(crate) fn close(&self) {
        self.lines().closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let queue = FairQueue::new(10);
        for (client, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            queue.push(client, item).unwrap();
        }
        let order = queue.order();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        let taken: Vec<_> = (0..6).filter_map(|_| queue.pop()).collect();
        assert_eq!(taken, order);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn it_is_bounded_and_can_be_closed() {
        let queue = FairQueue::new(2);
        queue.push("a", 1).unwrap();
        queue.push("b", 2).unwrap();
        assert_eq!(queue.push("c", 3), Err(Refused));
        queue.remove(|item| *item == 1);
        assert_eq!((queue.len(), queue.order()), (1, vec![2]));
        queue.close();
        assert_eq!(queue.push("a", 1), Err(Refused));
        assert_eq!(queue.pop(), None);
    }
}
