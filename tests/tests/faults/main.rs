//! Faults of machine and disk, against a real broker under load: each test ends with a full check that every acknowledged
//! record is readable exactly once, in order, under its number and with its bytes.
//!
//! Figures of long runs are in `tests/RELIABILITY.md`, and how to make them in CONTRIBUTING.md.

mod clock;
mod damage;
mod directory;
mod freeze;
mod kill;
mod power;
mod resources;
mod space;
mod syscalls;
mod volume;
