/* ward's kernels as they stand, compiled for the processor. */
#include "emulated.h"

#include "cuda/kernel_names.h"
#include "cuda/kernels/kernels.cu"

#include "kernel_table.h"

#include <tuple>
#include <utility>

template <class... A, size_t... i>
static std::function<void()> bind_all(void (*kernel)(A...), void **arguments, std::index_sequence<i...>)
{
    const std::tuple<A...> values(*(A *)arguments[i]...);
    return [=] { std::apply(kernel, values); };
}

template <class... A> static std::function<void()> bind_kernel(void (*kernel)(A...), void **arguments)
{
    static_assert((sizeof(A) + ... + 0) <= 4096, "what a kernel takes is at most 4 KB");
    return bind_all(kernel, arguments, std::index_sequence_for<A...>());
}

static const emulated_kernel table[] = {
#define KERNEL_ENTRY(name) {#name, [](void **arguments) { return bind_kernel(name, arguments); }},
    CARD_KERNELS(KERNEL_ENTRY) CARD_WGMMA_KERNELS(KERNEL_ENTRY)};

const emulated_kernel *emulated_find(const char *name)
{
    for (const emulated_kernel &kernel : table)
        if (strcmp(kernel.name, name) == 0)
            return &kernel;
    return nullptr;
}
