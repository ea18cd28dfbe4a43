//! Programs ask for the library by this name, so it is the one that libouroboros-dev 0.23 has.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libouroboros-dev.so.0.23");
    println!("cargo::rerun-if-changed=build.rs");
}
