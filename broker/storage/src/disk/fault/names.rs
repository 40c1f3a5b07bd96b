//! The names on a fault disk: those that are seen, those that are durable, and the changes between.

use super::chance::Chance;
use super::file::InodeRef;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A change of names.
#[derive(Clone)]
pub(super) enum Change {
    Create { name: String, inode: InodeRef },
    Rename { from: String, to: String, inode: InodeRef },
    Remove { name: String },
}

/// All names, as seen and as durable.
#[derive(Default)]
pub(super) struct Names {
    visible: BTreeMap<String, InodeRef>,
    durable: BTreeMap<String, InodeRef>,
    pending: Vec<Change>,
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, InodeRef>) {
        match self {
            Self::Create { name, inode } => {
                names.insert(name.clone(), Arc::clone(inode));
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), Arc::clone(inode));
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
    fn touches(&self) -> [&str; 2] {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => [name, name],
            Self::Rename { from, to, .. } => [from, to],
        }
    }
}

impl Names {
    pub(super) fn find(&self, name: &str) -> io::Result<InodeRef> {
        let inode = self.visible.get(name).map(Arc::clone);
        inode.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}")))
    }
    pub(super) fn list(&self, folder: &str) -> Vec<(String, u64)> {
        let within = self.sizes().filter(|(name, _)| folder_of(name) == folder);
        let plain =
            |name: String| name.rsplit_once('/').map_or_else(|| name.clone(), |(_, plain)| plain.to_owned());
        within.map(|(name, bytes)| (plain(name), bytes)).collect()
    }
    pub(super) fn sizes(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.visible.iter().map(|(name, inode)| (name.clone(), inode.lock().visible().len() as u64))
    }
    pub(super) fn used_bytes(&self) -> u64 {
        self.visible.values().map(|inode| inode.lock().visible().len() as u64).sum()
    }
    /// Every file that has a name.
    pub(super) fn inodes(&self) -> impl Iterator<Item = &InodeRef> {
        self.visible.values()
    }

    /// Makes a change that is seen at once, and durable when its folder is synced.
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }
    /// Makes the changes within a folder durable.
    pub(super) fn settle(&mut self, folder: &str) {
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let settles = folder_of(change.touches()[1]) == folder;
            if settles {
                change.apply(durable);
            }
            !settles
        });
    }
    /// Makes all changes durable.
    pub(super) fn settle_all(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }
    pub(super) fn insert_durable(&mut self, name: &str, inode: InodeRef) {
        self.remove_durable(name);
        self.visible.insert(name.to_owned(), Arc::clone(&inode));
        self.durable.insert(name.to_owned(), inode);
    }
    pub(super) fn remove_durable(&mut self, name: &str) {
        self.settle_all();
        self.visible.remove(name);
        self.durable.remove(name);
    }

    /// What a power cut leaves: of the pending changes the first so many, or any for which nothing about the same name
    /// was lost before.
    pub(super) fn lose_power(&mut self, chance: &mut Chance) {
        let pending = std::mem::take(&mut self.pending);
        if chance.coin() {
            let kept = chance.below(pending.len() + 1);
            for change in &pending[..kept] {
                change.apply(&mut self.durable);
            }
        } else {
            let mut lost: Vec<&str> = Vec::new();
            for change in &pending {
                if change.touches().iter().any(|name| lost.contains(name)) || chance.coin() {
                    lost.extend(change.touches());
                } else {
                    change.apply(&mut self.durable);
                }
            }
        }
        self.visible = self.durable.clone();
    }
}
