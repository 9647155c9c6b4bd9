/* Falling edges for EEMBC's runners and `--trigger d0:falling-pairs`, on pins of your own making. */
#include "board.h" /* yours: board_init(), and board_pin(line, level) of a pin that is an output */

#define JM_LINES 1
#define JM_PIN_HIGH(line) board_pin(line, 1)
#define JM_PIN_LOW(line) board_pin(line, 0)
#include "joulemeter_trigger.h"

#include "model.h" /* yours: model_invoke() */

int main(void)
{
    int window, inference;
    board_init();
    jm_init();
    jm_stamp_init();
    jm_stamp(); /* the set-up pulse */
    for (window = 0; window < 5; ++window) {
        jm_stamp();
        for (inference = 0; inference < 20; ++inference) {
            model_invoke();
        }
        jm_stamp();
    }
    return 0;
}
