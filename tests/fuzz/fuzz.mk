# Fuzzing: one libFuzzer target for each parser, tests/fuzz/fuzz_*.c (docs/fuzzing.md).
#
# make fuzz             builds all with clang, runs one after the other for FUZZ_SECONDS from the committed corpus
# make fuzz FUZZ=png    this one only; what it finds lies in $(BUILD)/fuzz/corpus/png, crashes in $(BUILD)/fuzz
#
# `make check` needs no libFuzzer: there the same targets, linked with replay.c, read the committed corpus.
FUZZ_SECONDS ?= 600
FUZZ_FLAGS   ?= -max_len=16384 -timeout=5 -rss_limit_mb=1500 -malloc_limit_mb=1000 -print_final_stats=1
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ         ?= $(FUZZ_TARGETS)

FUZZ_PROGRAMS := $(FUZZ_TARGETS:%=$(BUILD)/tests/fuzz/%)
FUZZ_MAIN     := $(if $(filter fuzz,$(VARIANT)),,$(BUILD)/tests/fuzz/replay.o)
# messages.c belongs to the program; what it calls in main.c the target has itself.
FUZZ_CLI := $(patsubst %,$(BUILD)/cli/%.o,messages conversation progress)
$(BUILD)/tests/fuzz/messages: $(FUZZ_CLI)
$(BUILD)/tests/fuzz/audit: $(BUILD)/cli/settings.o
$(BUILD)/tests/fuzz/png: FUZZ_LIBS := -lz

$(FUZZ_PROGRAMS): $(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/common.o $(FUZZ_MAIN) \
                                         $(BUILD)/objects.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/objects.a $(LIBS) $(FUZZ_LIBS)

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)
test-programs: fuzz-programs

fuzz:
	$(MAKE) VARIANT=fuzz CC=clang BUILD=$(BUILD)/fuzz fuzz-programs
	@for target in $(FUZZ); do \
	    mkdir -p $(BUILD)/fuzz/corpus/$$target && \
	    $(BUILD)/fuzz/tests/fuzz/$$target $(FUZZ_FLAGS) -max_total_time=$(FUZZ_SECONDS) \
	        -artifact_prefix=$(BUILD)/fuzz/$$target- -dict=tests/fuzz/$$target.dict \
	        $(BUILD)/fuzz/corpus/$$target tests/fuzz/corpus/$$target || exit 1; \
	done

-include $(wildcard $(BUILD)/tests/fuzz/*.d)
