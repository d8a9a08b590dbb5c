//! Chains of a split virtqueue: what section 2.7 of virtio allows is found, what it forbids is refused with words.

use machine::PhysAddr;
use machine::virtqueue::{Buffer, Dma, Refusal, Rings};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u64 = 0x100;
const TABLE: u64 = 0x200;
const RAM_BYTES: usize = 0x400;

struct Ram([u8; RAM_BYTES]);

/// Address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

impl Dma for Ram {
    fn read(&mut self, paddr: PhysAddr, into: &mut [u8]) -> bool {
        let at = usize::try_from(paddr.0).ok().and_then(|at| self.0.get(at..at.checked_add(into.len())?));
        at.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

impl Ram {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn describe(&mut self, at: u64, (paddr, length, flags, next): Descriptor) {
        self.put(at, &paddr.to_le_bytes());
        self.put(at + 8, &length.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }
}

/// Memory with these descriptors in a ring of four, and these heads offered behind `first`.
fn offered(descriptors: &[Descriptor], first: u16, heads: &[u16]) -> (Ram, Rings) {
    let mut ram = Ram([0; RAM_BYTES]);
    for (at, descriptor) in (0..).step_by(16).zip(descriptors) {
        ram.describe(at, *descriptor);
    }
    for (step, head) in (0u16..).zip(heads) {
        ram.put(AVAIL + 4 + 2 * u64::from(first.wrapping_add(step) % 4), &head.to_le_bytes());
    }
    ram.put(AVAIL + 2, &first.wrapping_add(heads.len() as u16).to_le_bytes());
    let (descriptors, driver) = (PhysAddr(0), PhysAddr(AVAIL));
    (ram, Rings { size: 4, indirect_max: 8, descriptors, driver, avail_index: first })
}

fn buffer(paddr: u64, length: u32) -> Buffer {
    Buffer { paddr, length }
}

#[test]
fn chains_come_in_the_order_of_the_ring_as_many_as_are_wanted() {
    let table = [(0x10, 4, NEXT, 2), (0x20, 8, 0, 0), (0x30, 1, WRITE, 0)];
    let (mut ram, mut rings) = offered(&table, 65534, &[1, 0, 1]);
    let offer = rings.take(&mut ram, 2).unwrap();
    assert_eq!(offer.chains.iter().map(|chain| chain.head).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(offer.chains[1].readable, [buffer(0x10, 4)]);
    assert_eq!(offer.chains[1].writable, [buffer(0x30, 1)]);
    assert_eq!(rings.avail_index, 0);
    assert_eq!(rings.take(&mut ram, 2).unwrap().chains.len(), 1);
    assert!(rings.take(&mut ram, 2).unwrap().chains.is_empty());
}

#[test]
fn an_indirect_table_goes_on_where_the_ring_ends() {
    let (mut ram, mut rings) = offered(&[(0x10, 4, NEXT, 3), (0, 0, 0, 0)], 0, &[0]);
    ram.describe(3 * 16, (TABLE, 32, INDIRECT, 0));
    ram.describe(TABLE, (0x40, 2, NEXT, 1));
    ram.describe(TABLE + 16, (0x50, 3, WRITE, 0));
    let chain = &rings.take(&mut ram, 4).unwrap().chains[0];
    assert_eq!(chain.readable, [buffer(0x10, 4), buffer(0x40, 2)]);
    assert_eq!(chain.writable, [buffer(0x50, 3)]);
}

#[test]
fn what_is_forbidden_is_refused_and_nothing_is_taken() {
    let last = u64::MAX;
    let rows: [(&[Descriptor], Refusal); 9] = [
        (&[(0, 1, NEXT, 0)], Refusal::TooLong { head: 0, limit: 4 }),
        (&[(0, 1, NEXT, 4)], Refusal::NoDescriptor { head: 0, index: 4, limit: 4 }),
        (&[(7, 0, 0, 0)], Refusal::Empty { head: 0, paddr: 7 }),
        (&[(last, 2, 0, 0)], Refusal::Wraps { head: 0, paddr: last, length: 2 }),
        (&[(0, 1, NEXT | WRITE, 1), (0, 1, 0, 0)], Refusal::ReadableLate { head: 0 }),
        (&[(0, u32::MAX, NEXT, 1), (0, 2, 0, 0)], Refusal::TooManyBytes { head: 0 }),
        (&[(TABLE, 17, INDIRECT, 0)], Refusal::IndirectBytes { head: 0, length: 17 }),
        (&[(TABLE, 9 * 16, INDIRECT, 0)], Refusal::IndirectLong { head: 0, count: 9, limit: 8 }),
        (
            &[(RAM_BYTES as u64, 16, INDIRECT, 0)],
            Refusal::NotRam { what: "indirect table", paddr: RAM_BYTES as u64, length: 16 },
        ),
    ];
    for (table, refusal) in rows {
        let (mut ram, mut rings) = offered(table, 3, &[0]);
        assert_eq!(rings.take(&mut ram, 4), Err(refusal));
        assert_eq!(rings.avail_index, 3);
    }
    let (mut ram, mut rings) = offered(&[], 0, &[0, 0, 0, 0, 0]);
    assert_eq!(rings.take(&mut ram, 4), Err(Refusal::IndexJumped { from: 0, to: 5, size: 4 }));
}
