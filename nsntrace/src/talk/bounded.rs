//! A map that takes no more than so much memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    mem,
};

/// A map in two generations of at most `MOST` entries: when the younger one is full and another entry comes, it becomes the
/// older one, and what was that is forgotten. What is used goes into the younger one, as long as that has room. So entries
/// that are not used go first.
#[derive(Debug)]
pub(super) struct Bounded<K, V, const MOST: usize> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V, const MOST: usize> Default for Bounded<K, V, MOST> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, V, const MOST: usize> Bounded<K, V, MOST> {
    /// The entry, which is used by this.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let is_full = self.young.len() >= MOST;
        match self.young.entry(*key) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(_) if is_full => self.old.get_mut(key),
            Entry::Vacant(entry) => self.old.remove(key).map(|value| entry.insert(value)),
        }
    }

    /// The entry as it is.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Adds or replaces an entry. Returns what is forgotten for it.
    pub(super) fn insert(&mut self, key: K, value: V) -> HashMap<K, V> {
        let mut forgotten = HashMap::new();
        if self.young.len() >= MOST {
            forgotten = mem::replace(&mut self.old, mem::take(&mut self.young));
        }
        self.old.remove(&key);
        forgotten.remove(&key);
        self.young.insert(key, value);
        forgotten
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// All entries, those used lately first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(&self.old)
    }

    /// All entries.
    pub(super) fn into_values(self) -> impl Iterator<Item = V> {
        self.young.into_values().chain(self.old.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut map = Bounded::<u32, u32, 10>::default();
        let mut forgotten = 0;
        for key in 0..1000 {
            forgotten += map.insert(key, key).len();
            assert_eq!(map.get_mut(&0), Some(&mut 0));
            assert!(map.iter().count() <= 20);
        }
        assert_eq!(map.get(&999), Some(&999));
        assert_eq!(map.get(&5), None);
        assert_eq!(forgotten + map.iter().count(), 1000);
        assert_eq!((map.remove(&999), map.remove(&999)), (Some(999), None));
        assert_eq!(map.into_values().count() + 1 + forgotten, 1000);
    }

    #[test]
    fn what_is_all_used_is_bounded_too() {
        let mut map = Bounded::<u32, u32, 10>::default();
        for key in 0..1000 {
            map.insert(key, key);
            for other in 0..=key {
                map.get_mut(&other);
            }
            assert!(map.iter().count() <= 20, "{}", map.iter().count());
        }
        assert_eq!(map.get(&999), Some(&999));
    }

    #[test]
    fn what_is_replaced_is_there_once() {
        let mut map = Bounded::<u32, u32, 2>::default();
        for value in 0..9 {
            for key in 0..3 {
                map.insert(key, value);
            }
        }
        assert_eq!((0..3).map(|key| map.iter().filter(|entry| *entry.0 == key).count()).max(), Some(1));
        assert_eq!(map.get(&2), Some(&8));
    }
}
