//! What tells that a file was changed, and when it may be read: not while it is being written.

use std::path::Path;
use std::time::SystemTime;

/// When a file was written, how long it is, which one it is and who may read it; none if it cannot be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(SystemTime, u64, u64, u32)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let look = || {
            let about = std::fs::metadata(path).ok()?;
            let (inode, mode) = inode_and_mode(&about);
            Some((about.modified().ok()?, about.len(), inode, mode))
        };
        Self(look())
    }
}

#[cfg(unix)]
fn inode_and_mode(about: &std::fs::Metadata) -> (u64, u32) {
    use std::os::unix::fs::MetadataExt;
    (about.ino(), about.mode())
}

#[cfg(not(unix))]
fn inode_and_mode(_: &std::fs::Metadata) -> (u64, u32) {
    (0, 0)
}

/// Files as they were looked at. A change counts once it looks the same twice in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks<T> {
    last: Option<T>,
    taken: Option<T>,
}

impl<T: PartialEq> Looks<T> {
    /// Whether the files are to be read now.
    pub(crate) fn settled(&mut self, now: T) -> bool {
        if self.taken.as_ref() == Some(&now) {
            self.last = None;
            return false;
        }
        if self.last.as_ref() == Some(&now) {
            self.taken = self.last.take();
            return true;
        }
        self.last = Some(now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_looks_the_same_twice() {
        let mut looks = Looks::default();
        let told: Vec<_> =
            [1, 1, 1, 2, 3, 3, 3, 4, 3, 4, 4, 4].into_iter().filter(|now| looks.settled(*now)).collect();
        assert_eq!(told, [1, 3, 4]);
    }

    #[test]
    fn another_file_in_its_place_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(Stamp::of(&path), Stamp::default());
        std::fs::write(&path, "one").unwrap();
        let before = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), before);
        std::fs::write(&other, "two").unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(written).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(Stamp::of(&path), before);
    }
}
