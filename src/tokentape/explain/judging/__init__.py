"""Do methods name what matters, and do they follow the model?"""
