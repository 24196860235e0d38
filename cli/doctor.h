/* What `ward doctor` found, and how it is shown. */
#ifndef WARD_CLI_DOCTOR_H
#define WARD_CLI_DOCTOR_H

#include "cli.h"

#include "bench/doctor.h"

struct doctor_report {
    struct machine machine;
    struct machine_state state;
    struct doctor_facts facts;
    struct limits limits; /* measured unless facts.device */
    struct card_facts card;         /* these, if facts.card */
    struct nvml_state card_state;
    struct card_limits card_limits;
    struct ward_error card_fault;
    struct json_document *shares; /* of --shares, or NULL */
    const char *shares_of; /* where facts.shares were reached, of --shares; NULL: assumed */
    const char *model;    /* as it was named */
    struct model_config config;
    struct doctor_type types[PREDICT_TYPES];
    struct doctor_check requirements[DOCTOR_REQUIREMENTS], safety[DOCTOR_SAFETY];
    bool dumps_limited; /* core dumps are off without the lock, too */
    bool has_log;       /* an audit log is configured */
    struct ward_error log_fault; /* why it, or the file that names it, is of no use; text "": it can be written */
    double asked_ms;    /* --target-ms; 0: not asked */
    double target_ms;   /* that, or the target of the machine's class */
    bool enough, fits, in_time; /* the minimum; one type at least fits; one that fits answers in time */
    bool will_do;
};

/* Fills what follows from the rest: requirements, safety, verdicts. */
void doctor_judge(struct doctor_report *report);
void doctor_print_text(const struct doctor_report *report);
void doctor_print_json(const struct doctor_report *report);
void doctor_print_devices(void);

#endif
