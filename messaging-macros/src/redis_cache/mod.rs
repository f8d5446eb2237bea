//! `#[redis_cache]`: the function looks into the cache first, and its companions act on the same entries.

mod free;
mod keep;
mod layer;
mod method;
mod options;
mod parts;

use proc_macro2::TokenStream;

use crate::function::Function;
use crate::mistakes::Mistakes;
use options::Config;
use parts::Parts;

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let function = Function::read(item, "`#[redis_cache]`", mistakes);
    let config = Config::read(arguments, function.as_ref(), mistakes);
    let function = function?;
    function.check("a cached function", mistakes);
    let parts = Parts { function: &function, config: &config? };
    Some(if !parts.config.has_companions {
        parts.in_place()
    } else if function.is_method() {
        method::expand(&parts)
    } else {
        free::expand(&parts)
    })
}
