//! The pool: each page once, its bytes its own.
use super::rig::{EPOCH, Memory, Server};
use drv_virtio_block::lib_block::client::pool::{Page, Pool};
use drv_virtio_block::lib_block::client::{Client, Replay, Request, SharedBuffer};
use drv_virtio_block::lib_block::entry::{Data, MemoryId, Piece};
use drv_virtio_block::lib_block::ring::Stage;
use std::ptr::NonNull;

/// A pool of four pages in leaked memory, and the memory as a device sees it.
fn pool() -> (Pool<4>, NonNull<u8>) {
    let bytes = NonNull::from(vec![0u8; 4 * 512 + 100].leak());
    // SAFETY: leaked, and used by the pool and the played device alone.
    (unsafe { Pool::new(bytes, MemoryId(9), 512) }.unwrap(), bytes.cast())
}

#[test]
fn every_page_is_handed_out_once_and_names_its_own_bytes() {
    let (pool, _) = pool();
    let mut pages: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((pages.len(), pool.left()), (4, 0));
    for (at, page) in pages.iter_mut().enumerate() {
        page.as_mut_slice().fill(at as u8 + 1);
    }
    let mut offsets = Vec::new();
    for (at, page) in pages.iter().enumerate() {
        assert_eq!(
            (page.as_slice().len(), page.as_slice()[0], page.as_slice()[511]),
            (512, at as u8 + 1, at as u8 + 1)
        );
        let Data::One(Piece { memory: MemoryId(9), offset, len: 512 }) = page.data() else { panic!("one piece") };
        offsets.push(offset);
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 512, 1024, 1536]);
}

#[test]
fn the_page_that_came_home_last_is_given_first() {
    let (pool, _) = pool();
    let (one, two) = (pool.take().unwrap(), pool.take().unwrap());
    let data = one.data();
    drop(two);
    drop(one);
    assert_eq!(pool.left(), 4);
    assert_eq!(pool.take().unwrap().data(), data);
}

#[test]
fn a_page_that_is_leaked_stays_away() {
    let (pool, _) = pool();
    std::mem::forget(pool.take());
    assert_eq!(pool.left(), 3);
    assert_eq!(std::iter::from_fn(|| pool.take()).map(std::mem::forget).count(), 3);
    assert!(pool.take().is_none());
}

#[test]
fn memory_that_is_too_small_makes_no_pool() {
    let mut bytes = [0u8; 1000];
    let at = NonNull::from(&mut bytes[..]);
    // SAFETY: nobody uses the bytes.
    unsafe {
        assert!(Pool::<2>::new(at, MemoryId(0), 512).is_none());
        assert!(Pool::<1>::new(at, MemoryId(0), 0).is_none());
        assert!(Pool::<0>::new(at, MemoryId(0), 512).is_none());
        assert!(Pool::<1>::new(at, MemoryId(0), 512).is_some());
        assert!(Pool::<2>::new(at, MemoryId(0), u32::MAX).is_none());
    }
}

#[test]
fn what_the_device_wrote_is_in_the_page_that_comes_back() {
    let (pool, device) = pool();
    let memory = Memory::new(4);
    let mut client: Client<'_, Page<'_, 4>, 4> = Client::new(memory.rings(4), 512).unwrap();
    let mut server = Server::new(memory, 4, EPOCH);
    server.announce(Stage::Serving);
    client.resume(Replay::Never, |_| ());
    assert!(server.is_acknowledged());
    for lba in 0..3 {
        client.submit(Request::read(lba, 1, pool.take().unwrap()).with_token(lba)).unwrap();
    }
    let _ = client.publish();
    assert_eq!(pool.left(), 1);
    for request in server.take().iter().rev() {
        let Data::One(piece) = request.data else { panic!("one piece") };
        // SAFETY: inside the leaked memory; the page is in flight, and so the device's.
        unsafe { device.add(piece.offset as usize).write_bytes(request.lba as u8 + 40, 512) };
        server.done(request);
    }
    client.reap(4, |done| {
        let page = done.buffer.unwrap();
        assert!(page.as_slice().iter().all(|&byte| u64::from(byte) == done.token + 40));
    });
    assert_eq!(pool.left(), 4);
}
