use bytes::Bytes;
use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tallymark::{
    item::Seq,
    log::{Log, Options, embedded::Embedded},
    units::Size,
};
fn io() -> (u64, u64) {
    let t = std::fs::read_to_string("/proc/self/io").unwrap();
    let g = |k: &str| t.lines().find(|l| l.starts_with(k)).unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    (g("wchar:"), g("write_bytes:"))
}
fn rss() -> u64 {
    let t = std::fs::read_to_string("/proc/self/status").unwrap();
    t.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        / 1024
}
fn cpu() -> f64 {
    let t = std::fs::read_to_string("/proc/self/stat").unwrap();
    let v: Vec<_> = t.rsplit(')').next().unwrap().split_whitespace().collect();
    (v[11].parse::<f64>().unwrap() + v[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dir = std::path::PathBuf::from(&a[1]);
    let size: usize = a[2].parse().unwrap();
    let tasks: usize = a[3].parse().unwrap();
    let secs: f64 = a[4].parse().unwrap();
    let retain: u64 = a[5].parse().unwrap();
    let tail = a[6] == "tail";
    let rate: f64 = a.get(7).map_or(0.0, |v| v.parse().unwrap());
    let max_gib: f64 = a.get(8).map_or(1e9, |v| v.parse().unwrap());
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async move {
        let t=Instant::now();
        let log = Arc::new(Embedded::open(&dir, "p", &Options{partitions:4, retention_bytes: Size::mib(retain)}).unwrap());
        println!("open {:?} rss {} MiB", t.elapsed(), rss());
        let read = Arc::new(AtomicU64::new(0));
        let mut readers = vec![];
        for p in 0..4u32 { let log=log.clone(); let read=read.clone(); readers.push(tokio::spawn(async move {
            if !tail { loop { let e = log.bounds(p).await.unwrap().end; log.progress(p, e, e).await.unwrap(); tokio::time::sleep(Duration::from_millis(100)).await; } }
            let mut c = log.open(p, log.bounds(p).await.unwrap().end, None).await.unwrap();
            let mut last = Instant::now();
            loop { let b = c.next().await.unwrap(); read.fetch_add(b.len() as u64, Relaxed); if last.elapsed()>Duration::from_millis(100) { last=Instant::now(); let s=b.last().unwrap().seq; log.progress(p, s, s).await.unwrap(); } }
        })); }
        let io0=io(); let c0=cpu(); let t=Instant::now(); let total=Arc::new(AtomicU64::new(0)); let maxrss=Arc::new(AtomicU64::new(0));
        let mut hs=vec![];
        for task in 0..tasks { let log=log.clone(); let total=total.clone(); let maxrss=maxrss.clone(); hs.push(tokio::spawn(async move {
            let mut lat=vec![]; let mut n=task as u64;
            let per = if rate>0.0 { tasks as f64*size as f64/(rate*1e6) } else {0.0};
            let mut due = Instant::now()+Duration::from_secs_f64(per*task as f64/tasks as f64);
            while t.elapsed().as_secs_f64()<secs && (total.load(Relaxed) as f64*size as f64) < max_gib*1073741824.0 {
                if rate>0.0 { tokio::time::sleep_until(due.into()).await; }
                let s= if rate>0.0 {due} else {Instant::now()};
                due += Duration::from_secs_f64(per);
                let mut v = vec![n as u8; size]; v[..8].copy_from_slice(&n.to_le_bytes());
                log.append((n%4) as u32, 1, Bytes::from(v)).await.unwrap(); lat.push(s.elapsed().as_micros() as u32); n+=1; total.fetch_add(1,Relaxed);
                if n%200==0 { maxrss.fetch_max(rss(), Relaxed); }
            } lat })); }
        let mut lat=vec![]; for h in hs { lat.extend(h.await.unwrap()); }
        let el=t.elapsed().as_secs_f64(); lat.sort(); let n=lat.len(); let io1=io(); let c=cpu()-c0;
        let mb=n as f64*size as f64/1e6;
        println!("{size}B x{tasks} tail={tail}: {:.0}/s {:.1} MB/s  p50 {} p99 {} p99.9 {} max {} us; cpu {:.2} cores = {:.1}% core per 10MB/s, {:.2}us/append; wchar amp {:.2} disk amp {:.2}; rss max {} now {}; read {}", n as f64/el, mb/el, lat[n/2], lat[n*99/100], lat[n*999/1000], lat[n-1], c/el, c/el*100.0/(mb/el/10.0), c*1e6/n as f64, (io1.0-io0.0) as f64/1e6/mb, (io1.1-io0.1) as f64/1e6/mb, maxrss.load(Relaxed), rss(), read.load(Relaxed));
        for r in readers { r.abort(); }
        if a_read() { let t=Instant::now(); let c0=cpu(); let mut bytes=0; for p in 0..4u32 { let b=log.bounds(p).await.unwrap(); let mut c=log.open(p,b.start,None).await.unwrap(); let mut at=b.start; while at<b.end { for r in c.next().await.unwrap() { bytes+=r.payload.len(); at=Seq(r.seq.0+1); } } } println!("replay {:.0} MB in {:?}: {:.0} MB/s, cpu {:.2}s rss {}", bytes as f64/1e6, t.elapsed(), bytes as f64/1e6/t.elapsed().as_secs_f64(), cpu()-c0, rss()); }
        drop(log);
    });
    println!("closed; rss {}", rss());
    let o = std::process::Command::new("du").args(["-sm", &a1()]).output().unwrap();
    print!("du {}", String::from_utf8_lossy(&o.stdout));
}
fn a1() -> String {
    std::env::args().nth(1).unwrap()
}
fn a_read() -> bool {
    std::env::var("REPLAY").is_ok()
}
