# make                    builds build/ward and build/libward.{a,so}
# make demo               installs what is missing, builds, describes a film with the demo checkpoint
# make test               installs what is missing, builds, runs every test
# make check              as test, but installs nothing
# make fuzz               a libFuzzer target for each parser, FUZZ_SECONDS each (needs clang; tests/fuzz/fuzz.mk)
# make install uninstall  program, libraries, header and pkg-config file under PREFIX (DESTDIR before it)
# make debug asan ubsan tsan   builds that variant in build/debug, ...; e.g. make VARIANT=asan check
# make container          an image FROM scratch, build/ward-container.tar, for docker load and podman load
# make bench-kernels      the speed of every kernel on this machine
# make clean
#
# VARIANT=release|debug|asan|ubsan|tsan  CC=gcc  CROSS=aarch64-linux-gnu-  BUILD=build  PREFIX=/usr/local
# LIBDIR=PREFIX/lib  WERROR=
# CUDA=1: kernels for NVIDIA cards as well (the default where nvcc is found), CUDA=0: without  NVCC=nvcc

VARIANT ?= release
CROSS   ?=
ifeq ($(origin CC),default)
CC      := $(CROSS)gcc
endif
AR      := $(CROSS)ar
OBJCOPY := $(CROSS)objcopy
PKG_CONFIG ?= $(CROSS)pkg-config
BUILD   ?= build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=
VERSION := $(shell sed -n 's/^\#define WARD_VERSION "\(.*\)"/\1/p' include/ward.h)
ABI     := $(firstword $(subst ., ,$(VERSION)))

ENGINE_PACKAGES := yajl libjpeg libpng libexif nettle libsodium
CLI_PACKAGES    := libedit libseccomp
TEST_PACKAGES   := cmocka

ifneq ($(filter-out setup demo test clean uninstall help,$(or $(MAKECMDGOALS),all)),)
ifneq ($(shell $(PKG_CONFIG) --exists $(ENGINE_PACKAGES) $(CLI_PACKAGES) 2>&1 || echo missing),)
$(error pkg-config does not find all of $(ENGINE_PACKAGES) $(CLI_PACKAGES): `make setup` installs what is missing)
endif
endif

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wundef -Wvla
WERROR   ?= -Werror
CFLAGS_release := -O3 -g -fno-math-errno
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fsanitize=thread
CFLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                  -fno-sanitize-recover=undefined
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_ubsan  := -fsanitize=undefined
LDFLAGS_tsan   := -fsanitize=thread
LDFLAGS_fuzz   := -fsanitize=fuzzer,address,undefined

# No contraction of a*b+c: the portable C gives the same result on every compiler and processor. Kernels ask for FMA
# themselves.
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -fPIC -fvisibility=hidden -ffp-contract=off -pthread \
               $(WARNINGS) $(WERROR) \
               $(CFLAGS_$(VARIANT)) $(shell $(PKG_CONFIG) --cflags $(ENGINE_PACKAGES) 2>/dev/null)
LIBS     := $(shell $(PKG_CONFIG) --libs $(ENGINE_PACKAGES) 2>/dev/null) -lm -ldl -pthread
CLI_LIBS := $(shell $(PKG_CONFIG) --libs $(CLI_PACKAGES) 2>/dev/null)
TEST_LIBS := $(shell $(PKG_CONFIG) --libs $(TEST_PACKAGES) 2>/dev/null)

MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)
SRC := $(wildcard src/base/*.c src/model/*.c src/image/*.c src/kernels/*.c src/engine/*.c \
                 src/quant/*.c src/cuda/*.c)
ifeq ($(MACHINE),x86_64)
SRC += $(wildcard src/kernels/x86/*.c)
endif
# What the program has beyond the library.
APP_SRC := $(wildcard src/audit/*.c src/synth/*.c src/bench/*.c src/offline/*.c src/bundle/*.c)
CLI_SRC := $(wildcard cli/*.c)
OBJ     := $(SRC:%.c=$(BUILD)/%.o) $(BUILD)/src/cuda/image.o
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)

# One file for each instruction set; only these may use its instructions.
AVX2_CFLAGS   := -mavx2 -mfma -mf16c
AVX512_CFLAGS := $(AVX2_CFLAGS) -mavx512f -mavx512bw -mavx512vl -mavx512dq
$(BUILD)/src/kernels/x86/avx2.o:        ISA_CFLAGS := $(AVX2_CFLAGS)
$(BUILD)/src/kernels/x86/avx_vnni.o:    ISA_CFLAGS := $(AVX2_CFLAGS) -mavxvnni
$(BUILD)/src/kernels/x86/avx512.o:      ISA_CFLAGS := $(AVX512_CFLAGS)
$(BUILD)/src/kernels/x86/avx512_bf16.o: ISA_CFLAGS := $(AVX512_CFLAGS) -mavx512bf16
$(BUILD)/src/kernels/x86/amx.o:         ISA_CFLAGS := $(AVX512_CFLAGS) -mavx512bf16 -mamx-tile -mamx-bf16
$(BUILD)/src/kernels/x86/avx512_vnni.o $(BUILD)/src/kernels/x86/avx512_vnni_gemm.o: ISA_CFLAGS := $(AVX512_CFLAGS) -mavx512vnni

.PHONY: all lib
all: $(BUILD)/ward lib
lib: $(BUILD)/libward.a $(BUILD)/libward.so

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(ISA_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# What it embeds is not seen by -MMD.
$(BUILD)/src/bundle/embedded.o: src/bundle/install.sh LICENSE

# What the program and the tests link: they reach below the public header.
$(BUILD)/objects.a: $(OBJ) $(APP_OBJ)
	rm -f $@ && $(AR) rcs $@ $^

# What others link: one object, so that internal names can be made local and never clash with a program's own.
$(BUILD)/libward.a: $(OBJ)
	$(CC) -r -nostdlib -o $(BUILD)/libward.o $^
	$(OBJCOPY) --localize-hidden $(BUILD)/libward.o
	rm -f $@ && $(AR) rcs $@ $(BUILD)/libward.o

$(BUILD)/libward.so.$(VERSION): $(OBJ)
	$(CC) -shared -Wl,-soname,libward.so.$(ABI) -Wl,-z,defs $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libward.so: $(BUILD)/libward.so.$(VERSION)
	ln -sf $(<F) $(BUILD)/libward.so.$(ABI)
	ln -sf libward.so.$(ABI) $@

# A bundle has its libraries in lib/ward beside bin; what is installed otherwise finds nothing there. The old kind of
# path (RPATH) holds for what libraries need, too.
$(BUILD)/ward: $(CLI_OBJ) $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib/ward' -o $@ $^ $(LIBS) $(CLI_LIBS)

# ---- kernels for NVIDIA cards: machine code for each kind, and PTX for the driver to compile ------------------------
# Only these files need the toolkit, of CUDA 11.4 (which knows sm_87) or later. They are the same for every variant, and
# made once.
NVCC       ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA       ?= $(if $(findstring sm_87,$(if $(NVCC),$(shell $(NVCC) --list-gpu-code 2>&1))),1,0)
# sm_75 to sm_120, as far as the toolkit knows them. Hopper's own products are sm_90a's (CUDA 12.0), and nobody else's.
CUDA_CODES := $(if $(filter 1,$(CUDA)),$(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code)))
CUDA_KINDS  = $(filter 75 80 86 87 89 90 100 120,$(CUDA_CODES))
cuda_arch   = $(if $(filter 90a,$(CUDA_CODES)),$(1:90=90a),$(1))
CUDA_BUILD ?= build/cuda
EMULATED_DRIVER := $(CUDA_BUILD)/emulated-$(MACHINE)/libcuda.so.1
NVCC_FLAGS := -std=c++17 -O3 -Isrc -Werror all-warnings --no-host-device-initializer-list
ifeq ($(CUDA),1)
CUDA_IMAGES := $(CUDA_BUILD)/portable.fatbin $(CUDA_BUILD)/kernels.fatbin
$(BUILD)/src/cuda/image.o: private ISA_CFLAGS := -DCUDA_IMAGE='"$(CUDA_BUILD)/kernels.fatbin"' \
    -DCUDA_PORTABLE_IMAGE='"$(CUDA_BUILD)/portable.fatbin"'
endif
$(BUILD)/src/cuda/image.o: src/cuda/image.S Makefile $(CUDA_IMAGES)
	@mkdir -p $(@D)
	$(CC) $(ISA_CFLAGS) -c -o $@ $<
# "speed" is the compression that every driver can undo; older toolkits know no other.
FATBINARY = $(dir $(NVCC))fatbinary -64 --compress-all \
            $(if $(shell $(dir $(NVCC))fatbinary --help | grep compress-mode),--compress-mode=speed)
CUDA_SRC := $(wildcard src/cuda/kernels/*.cu src/cuda/kernels/*.cuh) src/cuda/layout.h
$(CUDA_BUILD)/sm_%.cubin: $(CUDA_SRC) Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -cubin -arch=sm_$(call cuda_arch,$*) -o $@ src/cuda/kernels/kernels.cu
$(CUDA_BUILD)/kernels.fatbin: $(CUDA_KINDS:%=$(CUDA_BUILD)/sm_%.cubin)
	$(FATBINARY) --create=$@ $(foreach k,$(CUDA_KINDS),--image3=kind=elf,sm=$(call cuda_arch,$(k)),file=$(CUDA_BUILD)/sm_$(k).cubin)
# An older driver takes PTX of its time: the version that the instructions need, not that of the compiler. ptxas refuses
# what the version does not have, but for hints which bytes of a load are used: they are left out.
CUDA_PTX_VERSION := 7.4
$(CUDA_BUILD)/kernels.ptx: $(CUDA_SRC) Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -ptx -arch=compute_80 -o $@.new src/cuda/kernels/kernels.cu
	sed -i -e 's/^\.version .*/.version $(CUDA_PTX_VERSION)/' -e '/^[[:space:]]*\.pragma "used_bytes_mask/d' $@.new
	$(dir $(NVCC))ptxas -O0 -arch=sm_80 -o /dev/null $@.new
	mv $@.new $@
$(CUDA_BUILD)/portable.fatbin: $(CUDA_BUILD)/kernels.ptx
	$(FATBINARY) --create=$@ --image3=kind=ptx,sm=80,file=$<

.PHONY: debug asan ubsan tsan
debug asan ubsan tsan:
	$(MAKE) VARIANT=$@ BUILD=$(BUILD)/$@ all

# ---- installing ----------------------------------------------------------------------------------------------------
define PKGCONFIG_FILE
prefix=$(PREFIX)
libdir=$(LIBDIR)
includedir=$${prefix}/include

Name: ward
Description: MedGemma on one machine, offline
Version: $(VERSION)
Requires.private: $(ENGINE_PACKAGES)
Libs: -L$${libdir} -lward
Libs.private: -lm -ldl -pthread
Cflags: -I$${includedir}
endef
export PKGCONFIG_FILE

.PHONY: install uninstall
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 755 $(BUILD)/ward $(DESTDIR)$(PREFIX)/bin/
	install -m 644 include/ward.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(BUILD)/libward.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(BUILD)/libward.so.$(VERSION) $(DESTDIR)$(LIBDIR)/
	ln -sf libward.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libward.so.$(ABI)
	ln -sf libward.so.$(ABI) $(DESTDIR)$(LIBDIR)/libward.so
	printf '%s\n' "$$PKGCONFIG_FILE" > $(DESTDIR)$(LIBDIR)/pkgconfig/ward.pc

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/ward $(DESTDIR)$(PREFIX)/include/ward.h $(DESTDIR)$(LIBDIR)/pkgconfig/ward.pc \
	    $(DESTDIR)$(LIBDIR)/libward.a $(DESTDIR)$(LIBDIR)/libward.so $(DESTDIR)$(LIBDIR)/libward.so.$(ABI) \
	    $(DESTDIR)$(LIBDIR)/libward.so.$(VERSION)

# ---- a container image, without a container engine -----------------------------------------------------------------
.PHONY: container
container: $(BUILD)/ward
	@STRIP=$(CROSS)strip CC="$(CC)" tools/make_container.py $(BUILD)

# ---- the two commands of the README --------------------------------------------------------------------------------
# What is installed by the first line is seen by the second, a make of its own. It uses every processor unless told
# otherwise.
JOBS = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
.PHONY: setup demo test check
setup:
	@tools/setup.sh
demo: setup
	@$(MAKE) --no-print-directory --silent $(JOBS) $(BUILD)/ward
	@tools/demo.sh $(BUILD)/ward
test:
	@tools/setup.sh test
	@$(MAKE) --no-print-directory --silent $(JOBS) check

# ---- tests: every tests/unit/test_*.c is a program that prints TAP -------------------------------------------------
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
.PHONY: test-programs asan-programs kernel-tests bench-kernels
test-programs: all $(UNIT_TESTS) kernel-tests $(BUILD)/tests/benchkernels $(BUILD)/tests/ward-slow-encoder
test-programs: $(BUILD)/tests/escape.so $(BUILD)/tests/unlocked.so $(BUILD)/tests/cuda/libcuda.so.1 \
               $(BUILD)/tests/cuda/libnvidia-ml.so.1 $(BUILD)/tests/checkcard
# Preloaded: escape.so tries to get out of the lock of every command, a sanitizer has to come first itself; unlocked.so
# takes the lock away.
$(BUILD)/tests/%.so: tests/offline/%.c Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -pthread $(WARNINGS) $(WERROR) $(CFLAGS) -shared -o $@ $< -pthread
# The same under AddressSanitizer and UndefinedBehaviorSanitizer, beside a release build. What all variants share is made
# first: two makes at once would both make it.
asan-programs: $(CUDA_IMAGES) $(EMULATED_DRIVER)
ifeq ($(VARIANT),release)
	$(MAKE) VARIANT=asan BUILD=$(BUILD)/asan test-programs
endif
check: test-programs asan-programs
	@tests/run $(BUILD)

# Every kernel of every instruction set that this machine has, checked and measured.
kernel-tests: $(BUILD)/tests/checkkernels
bench-kernels: $(BUILD)/tests/benchkernels
	@$(BUILD)/tests/benchkernels
KERNEL_TEST_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/kernels/*.c))
ifeq ($(MACHINE),x86_64)
# avx_vnni.c as a processor without AVX-VNNI can run it if it has the same instructions as part of AVX-512.
KERNEL_TEST_OBJ += $(BUILD)/tests/kernels/avx_vnni_evex.o
$(BUILD)/tests/kernels/avx_vnni_evex.o: src/kernels/x86/avx_vnni.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(AVX2_CFLAGS) -mavx512vnni -mavx512vl -Dkernels_init_avx_vnni=kernels_init_avx_vnni_evex \
	    $(CFLAGS) -MMD -MP -c -o $@ $<
# amx.c as a processor without AMX can run it, with the tile instructions in C.
KERNEL_TEST_OBJ += $(BUILD)/tests/kernels/amx_emulated.o
$(BUILD)/tests/kernels/amx_emulated.o: src/kernels/x86/amx.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(AVX512_CFLAGS) -mavx512bf16 -include tests/kernels/amx_emulated.h \
	    -Dkernels_init_amx=kernels_init_amx_emulated $(CFLAGS) -MMD -MP -c -o $@ $<
endif
# Beside oneDNN's, where its version 2 is installed.
ONEDNN_2 = $(shell $(CC) -E -dM -include oneapi/dnnl/dnnl_version.h -x c /dev/null 2>/dev/null | \
                   grep 'DNNL_VERSION_MAJOR 2$$')
BENCH_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/kernels/bench/*.c))
$(BENCH_OBJ): ISA_CFLAGS = -Itests/kernels $(if $(ONEDNN_2),-DHAVE_ONEDNN)
$(BUILD)/tests/benchkernels: $(BENCH_OBJ) $(BUILD)/tests/kernels/harness.o $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS) $(if $(ONEDNN_2),-ldnnl)

# NVIDIA's driver and a card, emulated: the kernels as they stand, compiled for the processor; the same for every variant.
EMULATED_SRC := $(filter-out tests/cuda/nvml.cpp,$(wildcard tests/cuda/*.cpp))
EMULATED_CFLAGS = -std=c++17 -O2 -g -fno-strict-aliasing -fPIC -fvisibility=hidden -Isrc -Itests/cuda -Wall -Wextra $(WERROR) -Wno-unknown-pragmas
# The libraries that NVIDIA's names: empty since glibc 2.34, and to be there all the same.
AS_THE_DRIVER = -Wl,--no-as-needed -l:libdl.so.2 -l:libpthread.so.0 -l:librt.so.1
$(EMULATED_DRIVER): $(EMULATED_SRC) $(wildcard tests/cuda/*.h) $(CUDA_SRC) src/cuda/kernel_names.h Makefile
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_CFLAGS) -shared -o $@ $(EMULATED_SRC) $(AS_THE_DRIVER)
$(BUILD)/tests/cuda/libcuda.so.1: $(EMULATED_DRIVER)
	@mkdir -p $(@D)
	cp $< $@
$(BUILD)/tests/cuda/libnvidia-ml.so.1: tests/cuda/nvml.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_CFLAGS) -shared -o $@ $<

# Every operation of a card, that of this machine or the emulated one.
$(BUILD)/tests/cuda/%.o: ISA_CFLAGS = -Itests
CHECKCARD_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/cuda/*.c))
$(BUILD)/tests/checkcard: $(CHECKCARD_OBJ) $(BUILD)/tests/kernels/harness.o $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS)

# ward with an image encoder that is slower on purpose: `ward bench --compare` has to see it.
$(BUILD)/tests/ward-slow-encoder: $(BUILD)/tests/slow_encoder.o $(CLI_OBJ) $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -Wl,--wrap=vision_encode -o $@ $^ $(LIBS) $(CLI_LIBS)

$(BUILD)/tests/checkkernels: $(KERNEL_TEST_OBJ) $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/test_offline: TEST_LIBS += $(CLI_LIBS)
$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/objects.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS) $(CLI_LIBS) $(TEST_LIBS)

.PHONY: clean help
clean:
	rm -rf $(BUILD)

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

include tests/fuzz/fuzz.mk

-include $(OBJ:.o=.d) $(APP_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(KERNEL_TEST_OBJ:.o=.d) $(BENCH_OBJ:.o=.d) $(wildcard $(BUILD)/tests/unit/*.d $(BUILD)/tests/cuda/*.d)
.SECONDARY:
