// Any Arduino board: D2 marks the inference, D3 what is done before it.
#define JM_BACKEND_ARDUINO
#define JM_PINS 2, 3
#include "joulemeter_trigger.h"

#include "model.h"  // yours: model_preprocess(), model_invoke()

void setup() {
  jm_init();
  jm_empty_pairs(10);
}

void loop() {
  jm_phase_begin(1);
  model_preprocess();
  jm_phase_end(1);

  jm_inference_begin();
  model_invoke();  // with TensorFlow Lite Micro: interpreter->Invoke()
  jm_inference_end();
  delay(100);
}
